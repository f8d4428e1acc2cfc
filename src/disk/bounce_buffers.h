#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

namespace crosvm {

/// A few aligned buffers for direct I/O on behalf of a guest whose own are not aligned. Few, so
/// that no guest can make us allocate without bound; who finds none waits.
class BounceBuffers {
 public:
  static constexpr size_t kSize = 256 << 10;  ///< bytes of each; also the largest alignment
  static constexpr size_t kMost = 16;

  /// Empty when all are in use, or there is no memory for more.
  std::span<std::byte> take(size_t alignment) {
    if (free_.empty()) add(alignment);
    if (free_.empty()) return {};
    std::byte* taken = free_.back();
    free_.pop_back();
    return {taken, kSize};
  }
  void give_back(std::span<std::byte> buffer) { free_.push_back(buffer.data()); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  void add(size_t alignment) {
    if (all_.size() == kMost) return;
    std::unique_ptr<std::byte, Free> memory(
        static_cast<std::byte*>(std::aligned_alloc(alignment, kSize)));
    if (!memory) return;
    free_.push_back(memory.get());
    all_.push_back(std::move(memory));
  }

  std::vector<std::unique_ptr<std::byte, Free>> all_;
  std::vector<std::byte*> free_;
};

}  // namespace crosvm
