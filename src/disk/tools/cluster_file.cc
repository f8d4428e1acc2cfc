#include "disk/tools/cluster_file.h"

#include <algorithm>
#include <cstring>

#include "base/format.h"
#include "disk/qcow2/refcounts.h"
#include "disk/tools/raw_target.h"

namespace crosvm {
namespace {

constexpr uint64_t kHostBlock = 4096;  // the smallest hole that the host's file systems make

bool is_zero(std::span<const std::byte> bytes) {
  return bytes[0] == std::byte{0} &&
         std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

}  // namespace

ClusterFile::ClusterFile(const Fd& file, const Qcow2Layout& layout, uint64_t most_blocks,
                         std::string object)
    : file_(file),
      layout_(layout),
      most_blocks_(most_blocks),
      object_(std::move(object)),
      block_(layout.cluster_size()) {}

Result<uint64_t> ClusterFile::take(uint64_t count) {
  const uint64_t first = next_;
  next_ += count;
  this->count(first, count);
  TRY(put_full_blocks());
  return first;
}

void ClusterFile::count(uint64_t first, uint64_t count) {
  const uint64_t per_block = layout_.refcounts_per_block();
  for (uint64_t cluster = first; cluster < first + count; ++cluster) {
    if (cluster / per_block != block_index_) {
      full_.emplace_back(block_index_, std::move(block_));
      block_.assign(layout_.cluster_size(), std::byte{0});
      block_index_ = cluster / per_block;
    }
    store_refcount(block_, cluster % per_block, layout_.refcount_order, 1);
  }
}

bool ClusterFile::share(uint64_t cluster) {
  const uint64_t per_block = layout_.refcounts_per_block();
  if (cluster / per_block != block_index_) return false;
  const uint64_t uses = load_refcount(block_, cluster % per_block, layout_.refcount_order);
  if (uses == layout_.most_refcount()) return false;
  store_refcount(block_, cluster % per_block, layout_.refcount_order, uses + 1);
  return true;
}

Result<void> ClusterFile::write(uint64_t offset, std::span<const std::byte> bytes) {
  return write_at(file_, offset, bytes, object_);
}

Result<void> ClusterFile::write_sparse(uint64_t offset, std::span<const std::byte> bytes) {
  size_t begin = 0;  // of what is to be written
  size_t at = 0;
  while (at < bytes.size()) {
    const uint64_t in_block = (offset + at) % kHostBlock;
    const size_t end = std::min<size_t>(bytes.size(), at + (kHostBlock - in_block));
    if (is_zero(bytes.subspan(at, end - at))) {
      TRY(write(offset + begin, bytes.subspan(begin, at - begin)));
      begin = end;
    }
    at = end;
  }
  return write(offset + begin, bytes.subspan(begin));
}

Result<void> ClusterFile::put_block(uint64_t index, uint64_t cluster,
                                    std::span<const std::byte> block) {
  if (index >= most_blocks_) {
    return fail(
        Error(std::errc::file_too_large,
              format_text("{}: clusters of {} bytes are too small for so much; use a larger "
                          "--cluster-size",
                          object_, layout_.cluster_size())));
  }
  if (index >= offsets_.size()) offsets_.resize(index + 1);
  offsets_[index] = cluster << layout_.cluster_bits;
  return write(offsets_[index], block);
}

/// Each lies behind the clusters that it counts, and may be the first that the next one counts.
Result<void> ClusterFile::put_full_blocks() {
  while (!full_.empty()) {
    const auto [index, block] = std::move(full_.back());
    full_.pop_back();
    const uint64_t cluster = next_++;
    count(cluster, 1);
    TRY(put_block(index, cluster, block));
  }
  return {};
}

Result<std::vector<uint64_t>> ClusterFile::finish() {
  const uint64_t last = TRY(take(1));  // for the block that counts the end
  TRY(put_block(block_index_, last, block_));
  return std::move(offsets_);
}

}  // namespace crosvm
