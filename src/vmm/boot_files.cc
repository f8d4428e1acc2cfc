#include "vmm/boot_files.h"

#include <fcntl.h>

#include <vector>

#include "base/format.h"

namespace crosvm {
namespace {

std::string_view fix_for(std::errc code) {
  switch (code) {
    case std::errc::no_such_file_or_directory:
      return "; check the path";
    case std::errc::permission_denied:
      return "; make the file readable for the user who starts crosvm";
    default:
      return "";
  }
}

Result<Fd> open_user_file(const std::string& path, std::string_view what) {
  // Non-blocking: a FIFO without a writer must not hold us up before we can refuse it.
  Result<Fd> file = open_path(path, O_RDONLY | O_NONBLOCK);
  if (!file) {
    std::errc code = file.error().code();
    return fail(Error(code, format_text("{}: {}{}", what, file.error().what(), fix_for(code))));
  }
  TRY(with_context(file_size(*file, path), what));
  return file;
}

}  // namespace

Result<BootFiles> open_boot_files(const Config& config) {
  BootFiles files;
  files.kernel = TRY(open_user_file(config.kernel, "kernel"));
  if (config.initrd) files.initrd = TRY(open_user_file(*config.initrd, "initrd"));
  return files;
}

Result<std::vector<std::byte>> read_user_file(const std::string& path, std::string_view what,
                                              uint64_t limit) {
  Fd file = TRY(open_user_file(path, what));
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
