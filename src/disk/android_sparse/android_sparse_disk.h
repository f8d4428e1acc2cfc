#pragma once

#include <memory>

#include "disk/android_sparse/sparse_map.h"
#include "disk/split_disk.h"

namespace crosvm {

/// An Android sparse image (devices.md 4.2). Read-only.
class AndroidSparseDisk final : public SplitDisk {
 public:
  /// `file` gives the bytes of the image file that `map` was read from.
  AndroidSparseDisk(SparseMap map, std::unique_ptr<Disk> file);

 protected:
  Piece piece_at(uint64_t offset) const override;

 private:
  const SparseMap map_;
};

}  // namespace crosvm
