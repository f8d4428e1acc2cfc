// A zstd file that is opened and read. The first byte says whether a seek table is put behind it,
// which the fuzzer would hardly find: of one frame, as long as the next three bytes say.

#include <string>

#include "disk/zstd/zstd_disk.h"
#include "image_bytes.h"

namespace {

void append(std::string& to, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) to.push_back(static_cast<char>(value >> (8 * i)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  using Kind = DiskRequest::Kind;
  if (size < 4) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 4, size - 4);
  if ((data[0] & 1) != 0) {
    const size_t frames = bytes.size();
    append(bytes, 0x184D2A5E, 4);
    append(bytes, 8 + 9, 4);
    append(bytes, frames, 4);
    append(bytes, data[1] | data[2] << 8 | data[3] << 16, 4);
    append(bytes, 1, 4);
    append(bytes, 0, 1);
    append(bytes, 0x8F92EAB1, 4);
  }
  const auto file = fuzz::file_of({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  auto reader = ImageReader::create(*file, "fuzz");
  CHECK(reader.has_value());
  auto index = ZstdIndex::read(*reader);
  if (!index) return 0;
  auto disk =
      ZstdDisk::create(*std::move(index), fuzz::raw_disk(file, true), fuzz::event_loop(), "fuzz");
  CHECK(disk.has_value());
  const Kind kinds[] = {Kind::kRead, Kind::kExtent, Kind::kWrite};
  fuzz::use_disk(**disk, kinds);
  return 0;
}
