#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace crosvm {

/// The value below which `share` of all are. There is one at least.
inline double quantile(std::vector<double> values, double share) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}
inline double median(const std::vector<double>& values) { return quantile(values, 0.5); }

/// Of each round of one to the same round of the other.
inline std::vector<double> ratios(const std::vector<double>& first,
                                  const std::vector<double>& other) {
  std::vector<double> each;
  for (size_t i = 0; i < first.size(); ++i) each.push_back(first[i] / other[i]);
  return each;
}

}  // namespace crosvm
