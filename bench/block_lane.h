#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "virtio/rig/rig.h"

namespace crosvm {

/// The driver of one queue of a disk in a closed loop: requests of 4 KiB at random places, of which
/// each that comes back is followed by another. A request that fails, or comes back without having
/// been sent, ends the benchmark.
class BlockLane {
 public:
  static constexpr size_t kBytes = 4096;  ///< of one request

  /// Keeps `depth` requests of `type` (VIRTIO_BLK_T_IN or _OUT) in flight on a disk of `blocks`
  /// blocks of kBytes. `rig` outlives this.
  BlockLane(Rig& rig, uint16_t queue, uint32_t type, uint16_t depth, uint64_t blocks);
  ~BlockLane();
  BlockLane(const BlockLane&) = delete;
  BlockLane& operator=(const BlockLane&) = delete;

  void begin();
  /// Takes what came back, and sends as many when `more`. Returns how many it were.
  uint64_t turn(bool more);
  void ask_for_interrupt() { driver_.ring().ask_for_interrupt(); }
  const Fd& call() const { return driver_.call_descriptor(); }
  bool busy() const { return in_flight_ > 0; }

 private:
  /// A request's place in guest memory.
  struct Slot {
    GuestAddress header;
    GuestAddress status;
    GuestAddress table;
    std::array<DriverBuffer, 3> buffers;
  };
  void offer(uint16_t index);
  void show();

  Rig& rig_;
  RigDriver& driver_;
  const uint32_t type_;
  const uint64_t blocks_;
  std::minstd_rand random_;
  std::vector<Slot> slots_;
  std::vector<uint16_t> slot_of_;  // by the ID of a request
  size_t in_flight_ = 0;
};

}  // namespace crosvm
