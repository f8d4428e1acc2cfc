#include "virtio/rig/latency_histogram.h"

#include <algorithm>
#include <cmath>

namespace crosvm {

void LatencyHistogram::add(const LatencyHistogram& other) {
  for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  total_ += other.total_;
  highest_ = std::max(highest_, other.highest_);
}

uint64_t LatencyHistogram::end_of(size_t bucket) {
  if (bucket < kSteps) return bucket;
  const size_t shift = bucket / kSteps - 1;
  const uint64_t first = (bucket % kSteps + kSteps) << shift;
  return first + ((uint64_t{1} << shift) - 1);
}

uint64_t LatencyHistogram::percentile_ns(double share) const {
  const auto wanted = static_cast<uint64_t>(std::ceil(share * static_cast<double>(total_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen != 0 && seen >= wanted) return std::min(end_of(i), highest_);
  }
  return highest_;
}

}  // namespace crosvm
