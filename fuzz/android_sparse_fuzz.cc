// An Android sparse image that is opened and read.

#include "disk/android_sparse/android_sparse_disk.h"
#include "image_bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  using Kind = DiskRequest::Kind;
  const auto file = fuzz::file_of({data, size});
  auto reader = ImageReader::create(*file, "fuzz");
  CHECK(reader.has_value());
  auto map = SparseMap::read(*reader);
  if (!map) return 0;
  AndroidSparseDisk disk(*std::move(map), fuzz::raw_disk(file, true));
  const Kind kinds[] = {Kind::kRead, Kind::kExtent, Kind::kWrite};
  fuzz::use_disk(disk, kinds);
  return 0;
}
