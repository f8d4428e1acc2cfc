#include "platform/serial.h"

#include <utility>

#include "base/log.h"

namespace crosvm {
namespace {

enum Register : uint64_t {
  kData = 0,             // divisor low byte when DLAB is set
  kInterruptEnable = 1,  // divisor high byte when DLAB is set
  kInterruptIdentification = 2,
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};

constexpr uint8_t kIerReceive = 0x01;
constexpr uint8_t kIerTransmit = 0x02;
constexpr uint8_t kIerMask = 0x0f;
constexpr uint8_t kIirNone = 0x01;
constexpr uint8_t kIirTransmit = 0x02;
constexpr uint8_t kIirReceive = 0x04;
constexpr uint8_t kIirFifoBits = 0xc0;
constexpr uint8_t kLcrDlab = 0x80;
constexpr uint8_t kMcrDtr = 0x01;
constexpr uint8_t kMcrRts = 0x02;
constexpr uint8_t kMcrOut1 = 0x04;
constexpr uint8_t kMcrOut2 = 0x08;
constexpr uint8_t kMcrLoopback = 0x10;
constexpr uint8_t kLsrDataReady = 0x01;
constexpr uint8_t kLsrTransmitterEmpty = 0x60;
constexpr uint8_t kMsrCts = 0x10;
constexpr uint8_t kMsrDsr = 0x20;
constexpr uint8_t kMsrRi = 0x40;
constexpr uint8_t kMsrDcd = 0x80;

}  // namespace

Serial::Serial(Fd irq_event, std::unique_ptr<SerialOutput> output,
               std::unique_ptr<SerialInput> input)
    : irq_event_(std::move(irq_event)), output_(std::move(output)), input_(std::move(input)) {}

void Serial::read(uint64_t offset, std::span<std::byte> data) {
  if (data.size() != 1) return;
  if (input_) input_->start(*this);
  bool has_room;
  {
    std::lock_guard guard(mutex_);
    data[0] = std::byte{read_register(offset)};
    // Refilled by halves, so that a burst does not wake the loop for each byte.
    has_room = queue_.size() <= kQueueBytes / 2;
  }
  if (input_ && has_room) input_->room_available();
}

void Serial::write(uint64_t offset, std::span<const std::byte> data) {
  if (data.size() != 1) return;
  const uint8_t value = std::to_integer<uint8_t>(data[0]);
  std::unique_lock guard(mutex_);
  if (offset != kData || divisor_selected()) {
    write_register(offset, value);
    guard.unlock();
    if (input_ && offset == kModemControl) input_->room_available();  // loopback may have ended
    return;
  }
  if (in_loopback()) {
    if (queue_.size() < kQueueBytes) {
      queue_.push_back(value);
      raise_receive_interrupt();
    }
    return;
  }
  // The host's reader may be slow; input and the control loop must not wait for it with us.
  guard.unlock();
  transmit(value);
  guard.lock();
  raise_transmit_interrupt();
}

void Serial::transmit(uint8_t value) {
  const std::byte byte{value};
  auto written = output_->write(std::span(&byte, 1));
  if (!written && !output_failed_ && written.error().code() != std::errc::operation_canceled) {
    log::error("serial output is lost: {}", written.error().what());  // once, not for every byte
  }
  output_failed_ = !written;
}

uint8_t Serial::read_register(uint64_t offset) {
  switch (offset) {
    case kData:
      return divisor_selected() ? static_cast<uint8_t>(divisor_) : pop_input();
    case kInterruptEnable:
      return divisor_selected() ? static_cast<uint8_t>(divisor_ >> 8) : interrupt_enable_;
    case kInterruptIdentification:
      return kIirFifoBits | std::exchange(interrupt_identification_, kIirNone);
    case kLineControl:
      return line_control_;
    case kModemControl:
      return modem_control_;
    case kLineStatus:
      return kLsrTransmitterEmpty | (queue_.empty() ? 0 : kLsrDataReady);
    case kModemStatus:
      return modem_status();
    case kScratch:
      return scratch_;
    default:
      return 0;
  }
}

uint8_t Serial::pop_input() {
  uint8_t value = 0;
  if (!queue_.empty()) {
    value = queue_.front();
    queue_.pop_front();
  }
  interrupt_identification_ &= static_cast<uint8_t>(~kIirReceive);
  if (!queue_.empty() && (interrupt_enable_ & kIerReceive) != 0) {
    // A driver takes a bounded number of bytes in its handler, then asks here whether to go on.
    interrupt_identification_ |= kIirReceive;
  }
  if ((interrupt_identification_ & (kIirReceive | kIirTransmit)) == 0) {
    interrupt_identification_ = kIirNone;
  } else {
    interrupt_identification_ &= static_cast<uint8_t>(~kIirNone);
  }
  return value;
}

uint8_t Serial::modem_status() const {
  if (!in_loopback()) return kMsrDcd | kMsrDsr | kMsrCts;
  uint8_t status = 0;
  if ((modem_control_ & kMcrDtr) != 0) status |= kMsrDsr;
  if ((modem_control_ & kMcrRts) != 0) status |= kMsrCts;
  if ((modem_control_ & kMcrOut1) != 0) status |= kMsrRi;
  if ((modem_control_ & kMcrOut2) != 0) status |= kMsrDcd;
  return status;
}

void Serial::write_register(uint64_t offset, uint8_t value) {
  switch (offset) {
    case kData:
      divisor_ = static_cast<uint16_t>((divisor_ & 0xff00) | value);
      break;
    case kInterruptEnable:
      if (divisor_selected()) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0x00ff) | (value << 8));
      } else {
        write_interrupt_enable(value & kIerMask);
      }
      break;
    case kLineControl:
      line_control_ = value;
      break;
    case kModemControl:
      modem_control_ = value;
      break;
    case kScratch:
      scratch_ = value;
      break;
    default:  // FCR and the read-only registers
      break;
  }
}

void Serial::write_interrupt_enable(uint8_t value) {
  const bool changed = value != interrupt_enable_;
  interrupt_enable_ = value;
  if (!queue_.empty()) raise_receive_interrupt();
  if (changed) raise_transmit_interrupt();
}

bool Serial::in_loopback() const { return (modem_control_ & kMcrLoopback) != 0; }

bool Serial::divisor_selected() const { return (line_control_ & kLcrDlab) != 0; }

void Serial::raise_receive_interrupt() {
  if ((interrupt_enable_ & kIerReceive) == 0) return;
  interrupt_identification_ =
      static_cast<uint8_t>((interrupt_identification_ & ~kIirNone) | kIirReceive);
  signal_eventfd(irq_event_);
}

void Serial::raise_transmit_interrupt() {
  if ((interrupt_enable_ & kIerTransmit) == 0) return;
  interrupt_identification_ =
      static_cast<uint8_t>((interrupt_identification_ & ~kIirNone) | kIirTransmit);
  signal_eventfd(irq_event_);
}

size_t Serial::room() {
  std::lock_guard guard(mutex_);
  return in_loopback() ? 0 : kQueueBytes - queue_.size();  // in loopback the line is cut off
}

void Serial::receive(std::span<const std::byte> bytes) {
  std::lock_guard guard(mutex_);
  for (std::byte byte : bytes) queue_.push_back(std::to_integer<uint8_t>(byte));
  raise_receive_interrupt();
}

}  // namespace crosvm
