#include "devices/console/console_control.h"

#include <linux/virtio_console.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace crosvm {
namespace {

constexpr size_t kMessagesInATurn = 64;
constexpr size_t kHeaderBytes = sizeof(virtio_console_control);

QueueTurns::Turn turn_after(size_t left) {
  return left > 0 ? QueueTurns::Turn::kDone : QueueTurns::Turn::kMore;
}

/// A header and what follows it.
std::vector<std::byte> pack(const virtio_console_control& header, std::span<const std::byte> rest) {
  std::vector<std::byte> bytes(kHeaderBytes + rest.size());
  std::memcpy(bytes.data(), &header, kHeaderBytes);
  std::ranges::copy(rest, bytes.begin() + kHeaderBytes);
  return bytes;
}

}  // namespace

ConsoleControl::ConsoleControl(EventLoop& loop, DeviceEvents& events, const ConsoleConfig& config,
                               std::span<const std::unique_ptr<ConsolePort>> ports)
    : io_(ports),
      receiveq_(loop, events, [this] { return serve_receiveq(); }),
      transmitq_(loop, events, [this] { return serve_transmitq(); }) {
  for (const ConsolePortConfig& port : config.ports) ports_.push_back({.config = port, .size = {}});
}

void ConsoleControl::host_changed(size_t port) {
  if (ports_[port].ready) make_due(ports_[port], kOpen);
}

void ConsoleControl::resize(size_t port, ConsoleSize size) {
  ports_[port].size = size;
  if (ports_[port].ready && ports_[port].config.console) make_due(ports_[port], kSize);
}

void ConsoleControl::reset() {
  for (Port& port : ports_) {
    port.ready = false;
    port.due = 0;
  }
}

ConsoleControl::State ConsoleControl::state(size_t port) const {
  return {.ready = static_cast<uint8_t>(ports_[port].ready), .due = ports_[port].due};
}

void ConsoleControl::set_state(size_t port, State state) {
  Port& to = ports_[port];
  to.ready = state.ready != 0;
  to.due = state.due & kAllDue;
  if (!to.config.name) to.due &= ~kName;
  if (!to.ready) return;
  // The host's side, and the size of its terminal, are those of this process.
  const bool sized = to.config.console && to.size != ConsoleSize();
  make_due(to, kOpen | (sized ? kSize : 0));
}

void ConsoleControl::make_due(Port& port, uint8_t messages) {
  port.due |= messages;
  receiveq_.wake();
}

Result<QueueTurns::Turn> ConsoleControl::serve_transmitq() {
  Virtqueue& queue = transmitq_.queue();
  size_t left = kMessagesInATurn;
  while (left > 0) {
    auto chain = TRY(queue.pop());
    if (!chain) break;
    --left;
    const ChainBuffers buffers = chain->device_readable();
    if (buffers.size() >= kHeaderBytes) {
      const auto header = TRY(buffers.read<virtio_console_control>());
      handle(header.id, header.event, header.value);
    } else if (log_limit_.allows()) {
      log::warn("console: a control message has {} bytes, fewer than {}; ignored", buffers.size(),
                kHeaderBytes);
    }
    queue.push_used(*std::move(chain), 0);
  }
  queue.signal_used_if_needed();
  return turn_after(left);
}

void ConsoleControl::handle(uint32_t id, uint16_t event, uint16_t value) {
  if (event == VIRTIO_CONSOLE_DEVICE_READY && value == 1) {
    for (Port& port : ports_) make_due(port, kAdd | (port.config.name ? kName : 0));
    return;
  }
  const bool known = id < ports_.size();
  if (known && event == VIRTIO_CONSOLE_PORT_READY) return port_ready(ports_[id], value == 1);
  if (known && event == VIRTIO_CONSOLE_PORT_OPEN) return io_[id]->set_guest_open(value == 1);
  if (log_limit_.allows()) {
    log::warn("console: control event {} with value {} for port {}; ignored", event, value, id);
  }
}

void ConsoleControl::port_ready(Port& port, bool ready) {
  port.ready = ready;
  if (!ready) {
    port.due = 0;
    if (log_limit_.allows()) log::warn("console: the driver cannot use a port");
    return;
  }
  const bool sized = port.config.console && port.size != ConsoleSize();
  make_due(port, kOpen | (port.config.console ? kConsole : 0) | (sized ? kSize : 0));
}

Result<QueueTurns::Turn> ConsoleControl::serve_receiveq() {
  Virtqueue& queue = receiveq_.queue();
  size_t left = kMessagesInATurn;
  while (left > 0) {
    Port* port = find_due();
    if (port == nullptr) break;
    auto chain = TRY(queue.pop());
    if (!chain) break;
    --left;
    const auto due = static_cast<Due>(port->due & -port->due);  // the lowest bit comes first
    port->due &= ~due;
    const auto bytes = message(static_cast<uint32_t>(port - ports_.data()), due);
    const ChainBuffers buffers = chain->device_writable();
    const bool fits = buffers.size() >= bytes.size();
    if (fits) TRY(buffers.write_bytes(0, bytes));
    if (!fits && log_limit_.allows()) {
      log::warn("console: a control buffer has {} bytes; a message of {} is lost", buffers.size(),
                bytes.size());
    }
    queue.push_used(*std::move(chain), fits ? static_cast<uint32_t>(bytes.size()) : 0);
  }
  queue.signal_used_if_needed();
  return turn_after(left);
}

ConsoleControl::Port* ConsoleControl::find_due() {
  auto found = std::ranges::find_if(ports_, [](const Port& port) { return port.due != 0; });
  return found == ports_.end() ? nullptr : &*found;
}

std::vector<std::byte> ConsoleControl::message(uint32_t id, Due due) const {
  const Port& port = ports_[id];
  virtio_console_control header{.id = id, .event = 0, .value = 1};
  std::span<const std::byte> rest;
  switch (due) {
    case kAdd:
      header.event = VIRTIO_CONSOLE_PORT_ADD;
      break;
    case kName:
      header.event = VIRTIO_CONSOLE_PORT_NAME;
      rest = std::as_bytes(std::span(*port.config.name));
      break;
    case kOpen:
      header.event = VIRTIO_CONSOLE_PORT_OPEN;
      header.value = io_[id]->host_open() ? 1 : 0;
      break;
    case kConsole:
      header.event = VIRTIO_CONSOLE_CONSOLE_PORT;
      break;
    case kSize:
      header.event = VIRTIO_CONSOLE_RESIZE;
      rest = std::as_bytes(std::span(&port.size, 1));  // columns, then rows
      break;
  }
  return pack(header, rest);
}

}  // namespace crosvm
