#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <utility>
#include <vector>

namespace crosvm {

/// Memory whose contents nobody has set.
struct PoolBuffer {
  std::unique_ptr<std::byte[]> memory;  ///< or none
  size_t capacity = 0;
  std::span<std::byte> first(size_t bytes) const { return {memory.get(), bytes}; }
};

/// Keeps a few buffers for those that come next: the kernel clears every page that it gives.
class BufferPool {
 public:
  static constexpr size_t kMostKept = 8;
  static constexpr size_t kMostKeptBytes = 8 << 20;

  /// Of at least `bytes`; none when there is no memory.
  PoolBuffer take(size_t bytes) {
    for (PoolBuffer& kept : kept_) {
      if (kept.capacity < bytes || kept.capacity / 4 > bytes) continue;
      PoolBuffer taken = std::exchange(kept, std::move(kept_.back()));
      kept_.pop_back();
      kept_bytes_ -= taken.capacity;
      return taken;
    }
    std::unique_ptr<std::byte[]> memory(new (std::nothrow) std::byte[bytes]);
    if (!memory) return {};
    return {.memory = std::move(memory), .capacity = bytes};
  }
  void give_back(PoolBuffer buffer) {
    if (!buffer.memory || kept_.size() == kMostKept ||
        kept_bytes_ + buffer.capacity > kMostKeptBytes) {
      return;
    }
    kept_bytes_ += buffer.capacity;
    kept_.push_back(std::move(buffer));
  }

 private:
  std::vector<PoolBuffer> kept_;
  size_t kept_bytes_ = 0;
};

}  // namespace crosvm
