#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace crosvm {

/// What a driver wrote to the device configuration and the device has not seen yet.
struct ConfigWrites {
  /// Writes that wait, before a newer one takes the place of an older one.
  static constexpr size_t kMost = 1024;

  struct Write {
    size_t offset;
    std::vector<std::byte> data;
  };
  std::vector<Write> writes;

  /// Each write counts, as one to emerg_wr of a console, up to a bound. After that the last one at
  /// its place does, and a driver that never ceases takes no more memory.
  void add(size_t offset, std::vector<std::byte> data) {
    if (writes.size() >= kMost) {
      auto same = std::ranges::find_if(writes, [&](const Write& write) {
        return write.offset == offset && write.data.size() == data.size();
      });
      if (same != writes.end()) writes.erase(same);
    }
    writes.push_back({.offset = offset, .data = std::move(data)});
  }
};

}  // namespace crosvm
