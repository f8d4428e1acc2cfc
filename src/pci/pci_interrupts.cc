#include "pci/pci_interrupts.h"

#include <linux/pci_regs.h>

#include <algorithm>
#include <mutex>

#include "base/log.h"
#include "base/log_limit.h"
#include "pci/intx_pin.h"
#include "pci/msix_table.h"

namespace crosvm {

struct PciInterrupts::State {
  struct Event {
    Fd fd;
    uint8_t causes = 0;
    uint16_t vector = kNoVector;
    std::optional<uint32_t> irqfd;      ///< the GSI it is on; none: the relay watches
    InterruptRelay::WatchId watch = 0;  ///< the last one, also when it has ended
  };

  State(const PciInterruptHost& offered, const Options& options)
      : host(offered),
        label(options.label),
        table(options.vectors),
        gsis(options.vectors),
        events(options.causes.size()) {}

  bool unmasked(uint16_t vector) const {
    return enabled && !function_mask && vector != kNoVector && !table.masked(vector);
  }
  std::optional<uint32_t> route(uint16_t vector);
  void settle(Event& event);
  void settle_all();
  void settle_vector(uint16_t vector);
  void watch(Event& event);
  void relayed(Event& event);
  void deliver(Event& event);
  void send(uint16_t vector);
  void update_pin();
  /// Says what failed; the interrupt goes another way or, where there is none, is lost.
  void note(const Error& error) {
    if (limit.allows()) log::error("{}: {}", label, error.what());
  }
  void refused(std::string_view access, uint64_t offset, size_t size) {
    if (!limit.allows()) return;
    log::warn("{}: ignored {} of {} bytes at {:#x}", label, access, size, offset);
  }

  const PciInterruptHost host;
  const std::string label;
  LogLimit limit{"messages on PCI interrupts"};
  mutable std::mutex mutex;  // for all below, but for the descriptors of the events
  MsixTable table;
  bool enabled = false;
  bool function_mask = false;
  std::vector<std::optional<uint32_t>> gsis;  // by vector, from its first use on
  std::vector<Event> events;
  bool pin_disabled = false;
  uint8_t causes = 0;
  std::unique_ptr<IntxPin> pin;
};

/// The GSI that raises the vector's message of today, if one can be had.
std::optional<uint32_t> PciInterrupts::State::route(uint16_t vector) {
  const MsiMessage message = table.message(vector);
  std::optional<uint32_t>& gsi = gsis[vector];
  if (gsi) {
    Result<void> updated = host.routes.update(*gsi, message);
    if (updated) return gsi;
    note(updated.error());
    return std::nullopt;
  }
  Result<uint32_t> allocated = host.routes.allocate(message);
  if (allocated) return gsi = *allocated;
  note(allocated.error());
  return std::nullopt;
}

/// Brings the way of an event in line with everything else.
void PciInterrupts::State::settle(Event& event) {
  std::optional<uint32_t> wanted;
  if (unmasked(event.vector)) wanted = route(event.vector);
  if (wanted == event.irqfd) return;
  if (event.irqfd) {
    Result<void> removed = host.vm.unregister_irqfd(*event.irqfd, event.fd);
    if (!removed) note(removed.error());
    event.irqfd.reset();
  } else {
    host.relay.unwatch(event.watch);
  }
  if (wanted) {
    // What the relay has not taken yet. A signal from now on the hypervisor finds when it begins to
    // listen, or a call of the relay that is under way does, which drains under our lock.
    if (drain_eventfd(event.fd) != 0) deliver(event);
    Result<void> added = host.vm.register_irqfd(*wanted, event.fd, nullptr);
    if (added) {
      event.irqfd = wanted;
      return;
    }
    note(added.error());
  }
  watch(event);
}

void PciInterrupts::State::settle_all() {
  for (Event& event : events) settle(event);
  for (uint16_t vector = 0; vector < table.vectors(); ++vector) {
    if (unmasked(vector) && table.take_pending(vector)) send(vector);
  }
  update_pin();
}

void PciInterrupts::State::settle_vector(uint16_t vector) {
  for (Event& event : events) {
    if (event.vector == vector) settle(event);
  }
  if (unmasked(vector) && table.take_pending(vector)) send(vector);
}

void PciInterrupts::State::watch(Event& event) {
  event.watch = host.relay.watch(event.fd, [this, &event] { relayed(event); });
}

void PciInterrupts::State::relayed(Event& event) {
  std::lock_guard lock(mutex);
  if (drain_eventfd(event.fd) != 0) deliver(event);
}

/// The event was signalled and is ours to deliver, as things are now.
void PciInterrupts::State::deliver(Event& event) {
  if (!enabled) {
    causes |= event.causes;
    update_pin();
  } else if (unmasked(event.vector)) {
    send(event.vector);
  } else if (event.vector != kNoVector) {
    table.set_pending(event.vector);
  }
}

void PciInterrupts::State::send(uint16_t vector) {
  Result<void> sent = host.vm.signal_msi(table.message(vector));
  if (!sent) note(sent.error());
}

void PciInterrupts::State::update_pin() {
  if (pin == nullptr) return;
  Result<void> set = pin->set(!enabled && !pin_disabled && causes != 0);
  if (!set) note(set.error());
}

PciInterrupts::PciInterrupts(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<PciInterrupts>> PciInterrupts::create(const PciInterruptHost& host,
                                                             Options options) {
  CHECK(options.vectors >= 1 && options.vectors <= PCI_MSIX_FLAGS_QSIZE + 1);
  auto state = std::make_unique<State>(host, options);
  for (size_t i = 0; i < options.causes.size(); ++i) {
    state->events[i].fd = TRY(make_eventfd());
    state->events[i].causes = options.causes[i];
  }
  if (options.intx_gsi) {
    state->pin = TRY(IntxPin::create(host.vm, host.relay, *options.intx_gsi));
  }
  for (State::Event& event : state->events) state->watch(event);
  return std::unique_ptr<PciInterrupts>(new PciInterrupts(std::move(state)));
}

PciInterrupts::~PciInterrupts() {
  // First the relay, without the lock that its calls take; then nobody but us is left.
  for (State::Event& event : state_->events) state_->host.relay.forget(event.watch);
  for (State::Event& event : state_->events) {
    if (!event.irqfd) continue;
    Result<void> removed = state_->host.vm.unregister_irqfd(*event.irqfd, event.fd);
    if (!removed) state_->note(removed.error());
  }
  for (std::optional<uint32_t> gsi : state_->gsis) {
    if (gsi) state_->host.routes.release(*gsi);
  }
}

uint16_t PciInterrupts::vectors() const { return state_->table.vectors(); }

const Fd& PciInterrupts::event(size_t index) const { return state_->events[index].fd; }

void PciInterrupts::set_vector(size_t index, uint16_t vector) {
  std::lock_guard lock(state_->mutex);
  State::Event& event = state_->events[index];
  event.vector = vector < state_->table.vectors() ? vector : kNoVector;
  state_->settle(event);
}

uint16_t PciInterrupts::vector(size_t index) const {
  std::lock_guard lock(state_->mutex);
  return state_->events[index].vector;
}

void PciInterrupts::read_table(uint64_t offset, std::span<std::byte> data) const {
  std::ranges::fill(data, std::byte{0});
  std::lock_guard lock(state_->mutex);
  if (!state_->table.read(offset, data)) {
    state_->refused("a read of the MSI-X table", offset, data.size());
  }
}

void PciInterrupts::write_table(uint64_t offset, std::span<const std::byte> data) {
  std::lock_guard lock(state_->mutex);
  std::optional<uint16_t> vector = state_->table.write(offset, data);
  if (vector) {
    state_->settle_vector(*vector);
  } else {
    state_->refused("a write to the MSI-X table", offset, data.size());
  }
}

void PciInterrupts::read_pending(uint64_t offset, std::span<std::byte> data) const {
  std::ranges::fill(data, std::byte{0});
  std::lock_guard lock(state_->mutex);
  if (!state_->table.read_pending(offset, data)) {
    state_->refused("a read of the MSI-X pending bits", offset, data.size());
  }
}

void PciInterrupts::set_control(bool enable, bool function_mask) {
  std::lock_guard lock(state_->mutex);
  state_->enabled = enable;
  state_->function_mask = function_mask;
  state_->settle_all();
}

bool PciInterrupts::msix_enabled() const {
  std::lock_guard lock(state_->mutex);
  return state_->enabled;
}

uint8_t PciInterrupts::take_causes() {
  std::lock_guard lock(state_->mutex);
  uint8_t causes = std::exchange(state_->causes, 0);
  state_->update_pin();
  return causes;
}

void PciInterrupts::set_intx_disabled(bool disabled) {
  std::lock_guard lock(state_->mutex);
  state_->pin_disabled = disabled;
  state_->update_pin();
}

void PciInterrupts::reset_events() {
  std::lock_guard lock(state_->mutex);
  for (State::Event& event : state_->events) {
    event.vector = kNoVector;
    state_->settle(event);
    drain_eventfd(event.fd);
  }
  state_->causes = 0;
  state_->table.clear_pending();
  state_->update_pin();
}

}  // namespace crosvm
