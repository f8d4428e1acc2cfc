#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/log_limit.h"
#include "devices/console/console_config.h"
#include "devices/console/console_port.h"
#include "devices/queue_turns.h"

namespace crosvm {

/// The control queues of a console device with several or named ports (virtio 1.3 §5.3.6.2).
///
/// What the driver must be told is a set of facts for each port, not a list of messages: however
/// often a driver asks, and however few buffers it gives, nothing grows.
class ConsoleControl {
 public:
  /// `ports` outlive this.
  ConsoleControl(EventLoop& loop, DeviceEvents& events, const ConsoleConfig& config,
                 std::span<const std::unique_ptr<ConsolePort>> ports);

  QueueTurns& receiveq() { return receiveq_; }    ///< device to driver
  QueueTurns& transmitq() { return transmitq_; }  ///< driver to device

  /// The port's host side has opened or closed.
  void host_changed(size_t port);
  void resize(size_t port, ConsoleSize size);
  /// Forgets the driver.
  void reset();

  /// What the driver knows of a port; with the queues stopped.
  struct State {
    uint8_t ready = 0;
    uint8_t due = 0;
  };
  State state(size_t port) const;
  /// Also tells the driver again what may have changed meanwhile.
  void set_state(size_t port, State state);

 private:
  /// A message that is due, in the order of sending.
  enum Due : uint8_t { kAdd = 1, kName = 2, kOpen = 4, kConsole = 8, kSize = 16 };
  static constexpr uint8_t kAllDue = 31;
  struct Port {
    ConsolePortConfig config;
    ConsoleSize size;  ///< 0: not known
    bool ready = false;
    uint8_t due = 0;
  };

  Result<QueueTurns::Turn> serve_receiveq();
  Result<QueueTurns::Turn> serve_transmitq();
  void handle(uint32_t id, uint16_t event, uint16_t value);
  void port_ready(Port& port, bool ready);
  void make_due(Port& port, uint8_t messages);
  Port* find_due();
  std::vector<std::byte> message(uint32_t id, Due due) const;

  std::span<const std::unique_ptr<ConsolePort>> io_;
  std::vector<Port> ports_;
  LogLimit log_limit_{"console control messages"};
  QueueTurns receiveq_;
  QueueTurns transmitq_;
};

}  // namespace crosvm
