#include "vmm/boot_files.h"

#include <fcntl.h>

#include <vector>

#include "base/format.h"
#include "base/user_file.h"

namespace crosvm {
namespace {

Result<Fd> open_boot_file(const std::string& path, std::string_view what) {
  // Non-blocking: a FIFO without a writer must not hold us up before we can refuse it.
  Fd file = TRY(with_context(open_user_file(path, O_RDONLY | O_NONBLOCK), what));
  TRY(with_context(file_size(file, path), what));
  return file;
}

}  // namespace

Result<BootFiles> open_boot_files(const Config& config) {
  BootFiles files;
  files.kernel = TRY(open_boot_file(config.kernel, "kernel"));
  if (config.initrd) files.initrd = TRY(open_boot_file(*config.initrd, "initrd"));
  return files;
}

Result<std::vector<std::byte>> read_user_file(const std::string& path, std::string_view what,
                                              uint64_t limit) {
  Fd file = TRY(open_boot_file(path, what));
  uint64_t size = TRY(file_size(file, path));
  if (size > limit) {
    return fail(Error(std::errc::file_too_large,
                      format_text("{}: {} has {} bytes, more than the {} that such a file can have",
                                  what, path, size, limit)));
  }
  std::vector<std::byte> bytes(size);
  bytes.resize(TRY(read_full_at(file, 0, bytes, path)));
  return bytes;
}

}  // namespace crosvm
