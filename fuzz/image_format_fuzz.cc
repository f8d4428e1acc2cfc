// What a file is taken for by its first bytes, and that it stays that: a disk found to be raw is
// raw whatever a guest writes to its start. The input: a byte of how many bytes the file has at its
// start, those, then the guest's writes: three bytes each (offset, length, whether to wait for it)
// and what is written.

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>

#include "disk/guarded_disk.h"
#include "disk/image_format.h"
#include "disk/open_disk.h"
#include "fuzz_input.h"
#include "image_bytes.h"

namespace crosvm {
namespace {

using namespace std::string_view_literals;
using Kind = DiskRequest::Kind;

constexpr uint64_t kDiskBytes = 16 << 10;
constexpr size_t kMostWrites = 64;

/// The magics once more, as a list.
ImageFormat expected_format(std::string_view start) {
  constexpr std::pair<std::string_view, ImageFormat> kMagics[] = {
      {"composite_disk\x1d"sv, ImageFormat::kComposite},
      {"QFI\xfb"sv, ImageFormat::kQcow2},
      {"\x3a\xff\x26\xed"sv, ImageFormat::kAndroidSparse},
      {"\x28\xb5\x2f\xfd"sv, ImageFormat::kZstd}};
  for (const auto& [magic, format] : kMagics) {
    if (start.substr(0, magic.size()) == magic) return format;
  }
  const bool skippable = start.size() >= 4 && (start[0] & 0xf0) == 0x50 && start[1] == 0x2a &&
                         start[2] == 0x4d && start[3] == 0x18;
  return skippable ? ImageFormat::kZstd : ImageFormat::kRaw;
}

std::string start_of(const Fd& file) {
  std::string start(64, '\0');
  const auto length = read_full_at(file, 0, std::as_writable_bytes(std::span(start)), "fuzz");
  CHECK(length.has_value());
  start.resize(*length);
  return start;
}

void check_format(const Fd& file) {
  const auto found = detect_image_format(file, "fuzz");
  CHECK(found.has_value() && *found == expected_format(start_of(file)));
}

/// Whatever it is taken for: an error or a disk that can be read. It names files that nobody opens.
void open_as_found(const std::shared_ptr<const Fd>& file) {
  auto files = AsyncFiles::create(fuzz::event_loop(), {});
  CHECK(files.has_value());
  auto disk = open_disk(file, {.object = "fuzz", .read_only = true}, *files, nullptr);
  if (!disk) {
    CHECK(!disk.error().what().empty());
    return;
  }
  constexpr Kind kKinds[] = {Kind::kRead, Kind::kExtent};
  fuzz::use_disk(**disk, kKinds);
}

/// Whether a write may be done to a disk that must stay raw. What has not all of a magic could make
/// one up with others.
bool may_be_written(const fuzz::ImageRequest& write) {
  if (write.length == 0 || write.offset >= kImageMagicBytes) return true;
  if (write.offset != 0 || write.length < kImageMagicBytes) return false;
  const auto* bytes = reinterpret_cast<const char*>(write.bytes.data());
  return expected_format({bytes, write.bytes.size()}) == ImageFormat::kRaw;
}

/// Writes, some of them on their way together: what may be done is, and the file is raw all along.
void write_as_guest(const std::shared_ptr<const Fd>& file, FuzzInput& input) {
  GuardedDisk disk(fuzz::raw_disk(file, false), "fuzz");
  std::vector<std::unique_ptr<fuzz::ImageRequest>> writes;
  const auto wait = [&] {
    disk.submit();
    for (const auto& write : writes) {
      while (write->result < 0) {
        CHECK(fuzz::event_loop().run_once(std::chrono::seconds(10)).has_value());
      }
      CHECK(write->result == (may_be_written(*write) ? 0 : EIO));
    }
    CHECK(expected_format(start_of(*file)) == ImageFormat::kRaw);
  };
  while (!input.empty() && writes.size() < kMostWrites) {
    auto& write = *writes.emplace_back(std::make_unique<fuzz::ImageRequest>());
    write.kind = Kind::kWrite;
    const uint8_t offset = input.byte();
    write.offset = offset < 128 ? 0 : offset % 24;
    write.bytes.resize(input.byte() % 48);
    const uint8_t when = input.byte();
    input.fill(write.bytes);
    write.length = write.bytes.size();
    const size_t first = std::min<size_t>(write.length, when >> 2);
    write.buffers = {GuestSlice::over(std::span(write.bytes).first(first)),
                     GuestSlice::over(std::span(write.bytes).subspan(first))};
    disk.start(write);
    if (when % 4 != 0) wait();  // else the next one meets it
  }
  wait();
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  FuzzInput input({data, size});
  const size_t length = std::min<size_t>(input.byte(), size == 0 ? 0 : size - 1);
  std::vector<uint8_t> start(length);
  input.fill(std::as_writable_bytes(std::span(start)));
  const auto file = fuzz::file_of(start);
  check_format(*file);
  open_as_found(file);
  CHECK(::ftruncate(file->get(), static_cast<off_t>(kDiskBytes)) == 0);
  check_format(*file);
  if (*detect_image_format(*file, "fuzz") == ImageFormat::kRaw) write_as_guest(file, input);
  return 0;
}
