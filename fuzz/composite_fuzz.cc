// The file of a composite disk: the first byte says how its parts are used, the rest is the file.

#include <string>

#include "disk/composite/composite_disk.h"
#include "image_bytes.h"

namespace {

constexpr uint64_t kMostOpened = 4;
constexpr uint64_t kMostBytes = 1 << 20;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  using Kind = DiskRequest::Kind;
  if (size == 0) return 0;
  std::string bytes = "composite_disk\x1d";
  bytes.append(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto descriptor = parse_composite(std::as_bytes(std::span(bytes)), "fuzz");
  if (!descriptor) return 0;
  uint64_t end = 0;
  for (const CompositeComponent& component : descriptor->components) {
    CHECK(component.offset == end && component.length > 0);
    end += component.length;
    if (component.file_offset + component.length > kMostBytes) return 0;
  }
  CHECK(end == descriptor->length);
  const std::string again = composite_bytes(*descriptor);
  auto reread = parse_composite(std::as_bytes(std::span(again)), "fuzz");
  CHECK(reread && composite_bytes(*reread) == again);
  if (descriptor->components.size() > kMostOpened) return 0;

  std::vector<std::unique_ptr<Disk>> files;
  for (const CompositeComponent& component : descriptor->components) {
    const auto file = fuzz::file_of({});
    CHECK(::ftruncate(file->get(), static_cast<off_t>(kMostBytes)) == 0);
    files.push_back(fuzz::raw_disk(file, !component.writable));
  }
  auto disk = CompositeDisk::create(*descriptor, std::move(files), (data[0] & 1) != 0, "fuzz");
  CHECK(disk.has_value());
  const Kind kinds[] = {Kind::kRead,  Kind::kExtent,      Kind::kWrite,
                        Kind::kFlush, Kind::kWriteZeroes, Kind::kDiscard};
  fuzz::use_disk(**disk, kinds);
  return 0;
}
