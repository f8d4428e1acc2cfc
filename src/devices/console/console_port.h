#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/fd.h"
#include "devices/console/console_config.h"
#include "devices/console/port_input.h"
#include "devices/console/port_output.h"
#include "devices/queue_turns.h"

namespace crosvm {

/// One port of a console device: its receive and transmit queue, and what they are connected with.
///
/// Both directions are held up by whichever side is slow: input is read only into buffers of the
/// driver, and a buffer of the driver goes back only when the host has taken what was in it.
class ConsolePort {
 public:
  struct Ends {
    Fd output;  ///< may be none
    Fd input;   ///< may be none
  };
  /// `host_closed` is called on the loop when the host's side has gone for good.
  ConsolePort(EventLoop& loop, DeviceEvents& events, const ConsolePortConfig& config, Ends ends,
              std::function<void()> host_closed);

  QueueTurns& receiveq() { return receiveq_; }
  QueueTurns& transmitq() { return transmitq_; }
  Result<void> start_transmitq(Virtqueue queue);
  /// Stops the transmit queue. Of a buffer that the host has taken in part, the rest follows when
  /// the queue goes on from here.
  RingPosition stop_transmitq();

  /// Whether the guest listens: a driver throws away what reaches a port that nobody has opened.
  void set_guest_open(bool open);
  bool host_open() const { return host_open_; }
  /// Sends a byte past the queue; lost when much is waiting already.
  void emergency_write(std::byte byte);
  /// Forgets what a driver had set up. What it has sent stays on its way.
  void reset();

  /// What a driver had set up; with its queues stopped.
  struct State {
    uint8_t guest_open = 0;
    uint8_t resumes = 0;  ///< the rest is meant: a request was sent in part
    uint16_t index = 0;   ///< where it is in the ring
    uint8_t wrap_counter = 0;
    std::array<uint8_t, 3> padding{};
    uint64_t sent = 0;  ///< bytes of it
  };
  State state() const;
  void set_state(const State& state);

 private:
  struct Resume {
    RingPosition position;
    uint64_t sent;
  };

  Result<QueueTurns::Turn> serve_receiveq();
  Result<QueueTurns::Turn> serve_transmitq();
  Result<bool> take_request();
  Result<void> send_some(uint64_t& budget);
  void look_at_host();

  std::function<void()> host_closed_;
  bool guest_open_ = false;
  bool host_open_ = true;
  size_t chunk_bytes_;
  std::optional<DescriptorChain> request_;  // of the transmit queue, not yet sent in full
  uint64_t sent_ = 0;                       // bytes of it
  std::optional<Resume> resume_;            // what a stop left of a request
  QueueTurns receiveq_;
  QueueTurns transmitq_;
  std::unique_ptr<PortOutput> output_;  // null: discards
  std::unique_ptr<PortInput> input_;    // null: none
};

}  // namespace crosvm
