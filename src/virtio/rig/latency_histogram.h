#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace crosvm {

/// How long things took, in nanoseconds, to within a sixteenth. Counting allocates nothing.
class LatencyHistogram {
 public:
  void count(uint64_t ns) {
    ++buckets_[bucket_of(ns)];
    ++total_;
    if (ns > highest_) highest_ = ns;
  }
  void add(const LatencyHistogram& other);

  uint64_t total() const { return total_; }
  uint64_t highest_ns() const { return highest_; }
  /// At least this share (0 to 1) took no longer, up to the width of a bucket. 0 when empty.
  uint64_t percentile_ns(double share) const;

 private:
  static constexpr unsigned kSteps = 16;  // buckets per power of two
  static size_t bucket_of(uint64_t ns) {
    if (ns < kSteps) return ns;
    const auto shift = static_cast<unsigned>(std::bit_width(ns)) - 5;
    return (shift + 1) * kSteps + (ns >> shift) - kSteps;
  }
  /// The largest value of a bucket.
  static uint64_t end_of(size_t bucket);

  std::array<uint64_t, 62 * kSteps> buckets_{};
  uint64_t total_ = 0;
  uint64_t highest_ = 0;
};

}  // namespace crosvm
