#pragma once

#include <cstdint>

namespace crosvm {

/// Where a ring goes on: the next available element, which is the next used one too, as a ring
/// stops only when nothing is in flight. For a split ring `index` is the free-running avail_idx
/// (virtio 1.3 §2.7.6); for a packed ring the descriptor index and its wrap counter (§2.8.1).
struct RingPosition {
  uint16_t index = 0;
  bool wrap_counter = true;

  friend bool operator==(const RingPosition&, const RingPosition&) = default;
};

}  // namespace crosvm
