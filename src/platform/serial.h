#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

#include "base/fd.h"
#include "platform/bus.h"
#include "platform/serial_input.h"
#include "platform/serial_output.h"

namespace crosvm {

/// A 16550 UART with its eight byte-wide registers (devices.md 2.1). Line speed and format are
/// stored and mean nothing. Thread-safe: vCPUs through the bus, input on the event loop.
///
/// Two differences from the reference keep a guest from waiting for ever: the transmitter-empty
/// interrupt comes also after a byte that the host could not write, and taking a byte while others
/// are queued leaves the receive indication set.
class Serial : public BusDevice, private SerialReceiver {
 public:
  static constexpr uint64_t kLength = 8;  ///< bytes of port space
  static constexpr std::array<uint16_t, 4> kPorts{0x3f8, 0x2f8, 0x3e8, 0x2e8};  ///< COM1..COM4
  static constexpr std::array<uint32_t, 4> kGsis{4, 3, 4, 3};  ///< edge, two ports share each

  /// `irq_event` is an eventfd: one signal is one edge. `input` may be null; it starts to deliver
  /// at the guest's first read of a register.
  Serial(Fd irq_event, std::unique_ptr<SerialOutput> output,
         std::unique_ptr<SerialInput> input = nullptr);

  std::string_view label() const override { return "serial"; }
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  static constexpr size_t kQueueBytes = 64;

  size_t room() override;
  void receive(std::span<const std::byte> bytes) override;

  uint8_t read_register(uint64_t offset);
  void write_register(uint64_t offset, uint8_t value);
  void write_interrupt_enable(uint8_t value);
  uint8_t pop_input();
  uint8_t modem_status() const;
  void transmit(uint8_t value);
  bool in_loopback() const;
  bool divisor_selected() const;
  void raise_receive_interrupt();
  void raise_transmit_interrupt();

  Fd irq_event_;
  std::unique_ptr<SerialOutput> output_;  // used by one vCPU at a time, without mutex_: it may wait
  bool output_failed_ = false;

  std::mutex mutex_;  // guards the registers and the queue
  uint8_t interrupt_enable_ = 0;
  uint8_t interrupt_identification_ = 0x01;
  uint8_t line_control_ = 0x03;   // 8 data bits
  uint8_t modem_control_ = 0x08;  // OUT2
  uint8_t scratch_ = 0;
  uint16_t divisor_ = 12;  // 9600 baud
  std::deque<uint8_t> queue_;

  std::unique_ptr<SerialInput> input_;  // last: stops before what it delivers to goes away
};

}  // namespace crosvm
