#include "disk/android_sparse/android_sparse_disk.h"

#include <utility>

namespace crosvm {
namespace {

std::vector<std::unique_ptr<Disk>> only(std::unique_ptr<Disk> disk) {
  std::vector<std::unique_ptr<Disk>> disks;
  disks.push_back(std::move(disk));
  return disks;
}

}  // namespace

AndroidSparseDisk::AndroidSparseDisk(SparseMap map, std::unique_ptr<Disk> file)
    : SplitDisk(map.size(), true, only(std::move(file))), map_(std::move(map)) {}

SplitDisk::Piece AndroidSparseDisk::piece_at(uint64_t offset) const {
  const SparseMap::Run run = map_.at(offset);
  if (run.is_stored) return {.below = 0, .offset = run.file_offset, .length = run.length};
  return {.offset = offset, .length = run.length, .pattern = run.pattern};
}

}  // namespace crosvm
