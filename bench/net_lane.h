#pragma once

#include <cstdint>
#include <vector>

#include "virtio/rig/rig.h"

namespace crosvm {

/// The frames of the benchmark: UDP over IPv4 to an address that nobody has. Taps spread them over
/// their queues by `flow`.
std::vector<std::byte> net_frame(size_t bytes, uint16_t flow);

/// The driver of one queue of a network card in a closed loop. A chain that comes back without
/// having been sent ends the benchmark.
class NetLane {
 public:
  static constexpr uint32_t kMostInABuffer = 4096;  ///< of a receiveq; frames may take several

  /// Of a transmitq: keeps `depth` frames like `frame` in flight.
  static NetLane transmit(Rig& rig, uint16_t queue, uint16_t depth,
                          std::span<const std::byte> frame);
  /// Of a receiveq: `depth` buffers for frames of up to `bytes`.
  static NetLane receive(Rig& rig, uint16_t queue, uint16_t depth, uint32_t bytes);
  NetLane(NetLane&&) = default;
  NetLane& operator=(NetLane&&) = delete;
  ~NetLane();

  /// Offers all buffers that are not with the device.
  void begin();
  /// Takes what came back, and offers as many when `more`. Returns the frames.
  uint64_t turn(bool more);
  void ask_for_interrupt() { driver_.ring().ask_for_interrupt(); }
  const Fd& call() const { return driver_.call_descriptor(); }
  bool busy() const { return in_flight_ > 0; }

 private:
  NetLane(Rig& rig, uint16_t queue, uint16_t depth, uint32_t bytes, bool writable);
  void offer(uint16_t index);
  void show();
  bool ends_frame(uint16_t index);

  Rig& rig_;
  RigDriver& driver_;
  std::vector<DriverBuffer> buffers_;
  std::vector<uint16_t> buffer_of_;  // by the ID of a chain
  std::vector<uint16_t> idle_;       // not with the device
  size_t in_flight_ = 0;
  uint16_t rest_of_frame_ = 0;  // buffers of a received frame that are to come
};

}  // namespace crosvm
