#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "disk/qcow2/qcow2_layout.h"

namespace crosvm {

/// The clusters of a qcow2 file that is written from its start to its end, and their refcounts.
/// Memory is that of few refcount blocks, however long the file becomes.
class ClusterFile {
 public:
  /// `most_blocks`: so many refcount blocks the table has room for.
  ClusterFile(const Fd& file, const Qcow2Layout& layout, uint64_t most_blocks, std::string object);

  /// The first of so many clusters, one after the other, each used once. Errors: those of writing;
  /// file_too_large.
  Result<uint64_t> take(uint64_t count);
  /// Counts one more use of a cluster that was taken. False when it cannot be counted any more.
  bool share(uint64_t cluster);
  /// What `take` gives next.
  uint64_t next() const { return next_; }

  /// Errors: the errno of pwrite.
  Result<void> write(uint64_t offset, std::span<const std::byte> bytes);
  /// The same for what has not been written before: blocks of the host that are zero stay holes.
  Result<void> write_sparse(uint64_t offset, std::span<const std::byte> bytes);
  /// The offsets of the refcount blocks, by index. Nothing is taken any more.
  Result<std::vector<uint64_t>> finish();

 private:
  void count(uint64_t first, uint64_t count);
  Result<void> put_block(uint64_t index, uint64_t cluster, std::span<const std::byte> block);
  Result<void> put_full_blocks();

  const Fd& file_;
  const Qcow2Layout layout_;
  const uint64_t most_blocks_;
  const std::string object_;
  uint64_t next_ = 0;
  uint64_t block_index_ = 0;
  std::vector<std::byte> block_;  // for the clusters taken last
  std::vector<std::pair<uint64_t, std::vector<std::byte>>> full_;
  std::vector<uint64_t> offsets_;  // of the blocks that are written
};

}  // namespace crosvm
