#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "virtio/chain_builder.h"
#include "virtio/ring_position.h"

namespace crosvm {

/// Remembers, where it outlives this process, which requests of a queue a device has taken and not
/// given back: the process that takes its place gives each of them to the device again, and the
/// driver gets each back once (vhost-user protocol, "Inflight I/O tracking").
class InflightLog {
 public:
  /// A request as the log knows it.
  struct Request {
    uint16_t slot = 0;  ///< split: the index of its head
    /// Packed: its elements, as the ring's may have been overwritten since.
    std::vector<RingDescriptor> elements;
  };
  /// What the log needs to know of a ring that starts.
  struct Ring {
    bool packed = false;
    uint16_t size = 0;
    RingPosition base;           ///< counts for a log that was never used
    uint16_t used_idx = 0;       ///< split: of the used ring
    GuestSlice descriptor_area;  ///< packed
  };
  /// Where a ring stands: the next used element, and the requests that are out, oldest first.
  struct Standing {
    RingPosition used;
    std::vector<Request> requests;
  };

  virtual ~InflightLog() = default;
  /// Before all other calls. Errors: the log was damaged, or is that of another ring.
  virtual Result<Standing> open(const Ring& ring) = 0;
  /// A request was taken, and will be worked on when this returns. `head` counts for a split ring,
  /// `elements` for a packed one. Returns its slot.
  virtual uint16_t take(uint16_t head, std::span<const RingDescriptor> elements) = 0;
  /// It was not taken after all.
  virtual void undo_take(uint16_t slot) = 0;
  /// The driver is about to see that it is used; `used` is where the next used element goes then.
  virtual void begin_used(uint16_t slot, RingPosition used) = 0;
  /// The driver can see it.
  virtual void finish_used(uint16_t slot) = 0;
};

}  // namespace crosvm
