#include "virtio/virtio_pci.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {

using virtio_pci::CommonRegisters;
using virtio_pci::kBar;
using virtio_pci::kCommon;
using virtio_pci::kConfigEvent;
using virtio_pci::kDeviceConfig;
using virtio_pci::kIsr;
using virtio_pci::kMsixPending;
using virtio_pci::kMsixTable;
using virtio_pci::kNotify;
using virtio_pci::Notifications;
using virtio_pci::queue_event;

namespace {

constexpr uint64_t kRingReset = 1ULL << VIRTIO_F_RING_RESET;
/// What the transport offers by itself.
constexpr uint64_t kTransportFeatures = kRingReset | 1ULL << VIRTIO_F_VERSION_1;

bool is_access_size(size_t size) { return size == 1 || size == 2 || size == 4 || size == 8; }

// Registers are little endian, as are all hosts that we run on.
uint64_t load(std::span<const std::byte> data) {
  uint64_t value = 0;
  std::memcpy(&value, data.data(), data.size());
  return value;
}
void store(std::span<std::byte> data, uint64_t value) {
  std::memcpy(data.data(), &value, data.size());
}

}  // namespace

PciInterrupts::Options VirtioPci::interrupts_for(const DeviceInfo& info,
                                                 std::optional<uint32_t> intx_gsi) {
  const size_t queues = info.queue_sizes.size();
  PciInterrupts::Options options;
  options.vectors = static_cast<uint16_t>(std::min<size_t>(queues + 1, virtio_pci::kMaxVectors));
  options.causes.assign(queues + 1, 1);
  options.causes[kConfigEvent] = VIRTIO_PCI_ISR_CONFIG;
  options.intx_gsi = intx_gsi;
  options.label = info.name;
  return options;
}

Result<std::shared_ptr<VirtioPci>> VirtioPci::create(std::unique_ptr<DeviceBackend> backend,
                                                     const GuestMemory& memory, Vm& vm,
                                                     std::unique_ptr<PciInterrupts> interrupts,
                                                     const Options& options) {
  const DeviceInfo& info = backend->info();
  if (info.queue_sizes.size() > virtio_pci::kMaxQueues ||
      info.config.size() > kDeviceConfig.length ||
      interrupts->vectors() > virtio_pci::kMaxVectors) {
    return fail(Error::invalid(format_text(
        "{}: {} queues and {} bytes of configuration do not fit in virtio's PCI transport",
        info.name, info.queue_sizes.size(), info.config.size())));
  }
  Notifications notifications =
      TRY(with_context(Notifications::create(vm, info.name, info.queue_sizes.size()), info.name));
  std::shared_ptr<VirtioPci> made(
      new VirtioPci(std::move(backend), memory, std::move(interrupts), std::move(notifications)));
  made->capabilities_ = TRY(
      with_context(virtio_pci::build_config_space(made->config_space_, made->interrupts_->vectors(),
                                                  options.shared_memory),
                   made->name_));
  if (options.intx) made->config_space_.set_interrupt(options.intx->pin, options.intx->line);
  made->backend_->set_listener(made.get());
  return made;
}

VirtioPci::VirtioPci(std::unique_ptr<DeviceBackend> backend, const GuestMemory& memory,
                     std::unique_ptr<PciInterrupts> interrupts, Notifications notifications)
    : name_(backend->info().name),
      memory_(memory),
      interrupts_(std::move(interrupts)),
      config_space_(virtio_pci::identity(backend->info().device_type)),
      registers_(backend->info().features | kTransportFeatures, backend->info().queue_sizes,
                 *interrupts_),
      notifications_(std::move(notifications)),
      device_config_(backend->info().config),
      backend_(std::move(backend)) {}

VirtioPci::~VirtioPci() { backend_->set_listener(nullptr); }

void VirtioPci::ignored(const char* access, uint64_t offset, size_t size) {
  if (ignored_.allows()) {
    log::warn("{}: ignored a {} of {} bytes at register {:#x}", name_, access, size, offset);
  }
}

// ---- BAR 0

void VirtioPci::read_bar(size_t bar, uint64_t offset, std::span<std::byte> data) {
  if (bar != kBar || !is_access_size(data.size())) return;
  if (kMsixTable.contains(offset)) {
    interrupts_->read_table(offset - kMsixTable.offset, data);
  } else if (kMsixPending.contains(offset)) {
    interrupts_->read_pending(offset - kMsixPending.offset, data);
  } else {
    std::lock_guard lock(mutex_);
    read_registers(offset, data);
  }
}

void VirtioPci::read_registers(uint64_t offset, std::span<std::byte> data) {
  if (kDeviceConfig.contains(offset)) {
    const size_t at = offset - kDeviceConfig.offset;
    if (at >= device_config_.size()) return;  // zeroes, as behind its end
    const size_t inside = std::min(data.size(), device_config_.size() - at);
    std::ranges::copy(std::span(device_config_).subspan(at, inside), data.begin());
    return;
  }
  if (offset == kIsr.offset && data.size() == kIsr.length) {
    store(data, interrupts_->take_causes());
    return;
  }
  std::optional<uint64_t> value;
  if (kCommon.contains(offset)) value = registers_.read(offset - kCommon.offset, data.size());
  if (!value) return ignored("read", offset, data.size());
  store(data, *value);
}

void VirtioPci::write_bar(size_t bar, uint64_t offset, std::span<const std::byte> data) {
  if (bar != kBar || !is_access_size(data.size())) return;
  if (kNotify.contains(offset)) {
    if (!notifications_.signal(offset - kNotify.offset)) ignored("write", offset, data.size());
    return;
  }
  if (kMsixTable.contains(offset)) {
    return interrupts_->write_table(offset - kMsixTable.offset, data);
  }
  std::lock_guard one_access(access_);
  Calls calls;
  {
    std::lock_guard lock(mutex_);
    if (resetting_) return;
    write_registers(offset, data, calls);
  }
  for (auto& call : calls) call();
}

void VirtioPci::write_registers(uint64_t offset, std::span<const std::byte> data, Calls& calls) {
  if (kCommon.contains(offset)) {
    write_common(offset - kCommon.offset, data, calls);
  } else if (kDeviceConfig.contains(offset)) {
    write_device_config(offset - kDeviceConfig.offset, data, calls);
  } else {
    ignored("write", offset, data.size());
  }
}

void VirtioPci::write_common(uint64_t offset, std::span<const std::byte> data, Calls& calls) {
  switch (registers_.write(offset, data.size(), load(data))) {
    case CommonRegisters::Effect::kNone:
      return;
    case CommonRegisters::Effect::kIgnored:
      return ignored("write", kCommon.offset + offset, data.size());
    case CommonRegisters::Effect::kReset:
      return reset_device(calls);
    case CommonRegisters::Effect::kFeaturesRefused:
      if (ignored_.allows()) {
        log::warn(
            "{}: the driver's features {:#x} are not a part of what is offered, or not with "
            "VIRTIO_F_VERSION_1",
            name_, registers_.driver_features());
      }
      return;
    case CommonRegisters::Effect::kStatus:
      if (!active_ && registers_.driver_is_ready()) activate(calls);
      return;
    case CommonRegisters::Effect::kQueueEnabled:
      // §4.1.4.3.2 wants queues before DRIVER_OK, but not all drivers do so.
      if (active_) start_queue(registers_.selected_queue(), calls);
      return;
    case CommonRegisters::Effect::kQueueReset:
      return reset_queue(registers_.selected_queue(), calls);
  }
}

void VirtioPci::write_device_config(size_t offset, std::span<const std::byte> data, Calls& calls) {
  if (!registers_.driver_present() || offset > device_config_.size() ||
      data.size() > device_config_.size() - offset) {
    return ignored("write", kDeviceConfig.offset + offset, data.size());
  }
  std::vector<std::byte> config = device_config_;
  std::ranges::copy(data, config.begin() + static_cast<ptrdiff_t>(offset));
  replace_config(config);
  dirty_ = true;
  calls.emplace_back([this, offset, bytes = std::vector(data.begin(), data.end())]() mutable {
    backend_->set_config(offset, std::move(bytes));
  });
}

void VirtioPci::replace_config(std::span<const std::byte> config) {
  if (std::ranges::equal(config, device_config_)) return;
  std::ranges::copy(config, device_config_.begin());
  registers_.count_config_change();
}

// ---- the state of the device

void VirtioPci::activate(Calls& calls) {
  active_ = true;
  dirty_ = true;
  calls.emplace_back([this, features = registers_.driver_features() & ~kRingReset] {
    backend_->set_features(features);
  });
  if (!std::exchange(memory_given_, true)) {
    calls.emplace_back([this] { backend_->set_memory(memory_); });
  }
  for (size_t i = 0; i < registers_.queue_count(); ++i) {
    const auto index = static_cast<uint16_t>(i);
    const CommonRegisters::Queue& queue = registers_.queue(index);
    if (queue.enabled && !queue.resetting) start_queue(index, calls);
  }
}

void VirtioPci::start_queue(uint16_t index, Calls& calls) {
  Result<Fd> kick = notifications_.kick(index).duplicate();
  Result<Fd> call = interrupts_->event(queue_event(index)).duplicate();
  if (!kick || !call) {
    log::error("{}: queue {} cannot start: {}", name_, index, (kick ? call : kick).error().what());
    return set_needs_reset();
  }
  // Before the ring runs: the backend looks at it once when it starts, and no notification after
  // that is lost.
  notifications_.set_live(index, true);
  calls.emplace_back([this, index, queue = registers_.queue(index), kick = std::move(*kick),
                      call = std::move(*call)]() mutable {
    backend_->set_vring_num(index, queue.size);
    backend_->set_vring_addr(index, queue.addresses);
    backend_->set_vring_base(index, {});
    backend_->set_vring_call(index, std::move(call));
    backend_->set_vring_kick(index, std::move(kick));
    backend_->set_vring_enable(index, true);
  });
}

void VirtioPci::reset_queue(uint16_t index, Calls& calls) {
  if (!active_) return registers_.finish_queue_reset(index);
  notifications_.set_live(index, false);
  calls.emplace_back([this, index, resets = resets_] {
    backend_->get_vring_base(index, [this, index, resets](RingPosition) {
      std::lock_guard lock(mutex_);
      if (resets == resets_) registers_.finish_queue_reset(index);
    });
  });
}

void VirtioPci::reset_device(Calls& calls) {
  ++resets_;
  if (!dirty_) return finish_reset();
  resetting_ = true;
  notifications_.set_all_dead();
  calls.emplace_back([this] {
    backend_->reset([this] {
      std::lock_guard lock(mutex_);
      finish_reset();
    });
  });
}

void VirtioPci::finish_reset() {
  registers_.reset();
  active_ = false;
  dirty_ = false;
  resetting_ = false;
}

void VirtioPci::set_needs_reset() {
  dirty_ = true;
  if (registers_.set_needs_reset() && registers_.driver_ok()) {
    signal_eventfd(interrupts_->event(kConfigEvent));  // §2.1.2
  }
}

// ---- what the backend tells, on any thread

void VirtioPci::config_changed(std::vector<std::byte> config) {
  std::lock_guard lock(mutex_);
  config.resize(device_config_.size());
  if (std::ranges::equal(config, device_config_)) return;
  replace_config(config);
  if (registers_.driver_ok() && !resetting_) signal_eventfd(interrupts_->event(kConfigEvent));
}

void VirtioPci::needs_reset() {
  std::lock_guard lock(mutex_);
  if (!resetting_) set_needs_reset();
}

// ---- configuration space, which PciRoot serialises

void VirtioPci::bar_mapped(size_t bar, std::optional<uint64_t> address) {
  if (bar != kBar) return;
  std::lock_guard lock(mutex_);
  notifications_.set_bar_address(address);
}

std::optional<VirtioPci::Window> VirtioPci::window() const {
  const size_t at = capabilities_.pci_config;
  const uint32_t bar = config_space_.read((at + VIRTIO_PCI_CAP_BAR) / 4) & 0xff;
  const uint64_t offset = config_space_.read((at + VIRTIO_PCI_CAP_OFFSET) / 4);
  const uint64_t length = config_space_.read((at + VIRTIO_PCI_CAP_LENGTH) / 4);
  const bool valid = bar == kBar && (length == 1 || length == 2 || length == 4) &&
                     offset % length == 0 && offset < virtio_pci::kBarSize;
  if (!valid) return {};
  return Window{.offset = offset, .length = length};
}

void VirtioPci::config_reading(size_t index) {
  if (index != (capabilities_.pci_config + sizeof(virtio_pci_cap)) / 4) return;
  const std::optional<Window> window = this->window();
  if (!window) return;
  std::array<std::byte, 4> data;
  store(data, config_space_.read(index));
  const auto taken = std::span(data).first(window->length);
  std::ranges::fill(taken, std::byte{});
  read_bar(kBar, window->offset, taken);
  config_space_.set_read_only(index, static_cast<uint32_t>(load(data)));
}

void VirtioPci::config_written(size_t index) {
  const uint32_t value = config_space_.read(index);
  if (index == PCI_COMMAND / 4) {
    interrupts_->set_intx_disabled((value & PCI_COMMAND_INTX_DISABLE) != 0);
  } else if (index == capabilities_.msix / 4U) {
    const uint32_t control = value >> 16;
    interrupts_->set_control((control & PCI_MSIX_FLAGS_ENABLE) != 0,
                             (control & PCI_MSIX_FLAGS_MASKALL) != 0);
  } else if (index == (capabilities_.power_management + PCI_PM_CTRL) / 4U) {
    follow_power_state();
  } else if (index == (capabilities_.pci_config + sizeof(virtio_pci_cap)) / 4) {
    const std::optional<Window> window = this->window();
    std::array<std::byte, 4> data;
    store(data, value);
    if (window) write_bar(kBar, window->offset, std::span(data).first(window->length));
  }
}

void VirtioPci::follow_power_state() {
  const size_t index = (capabilities_.power_management + PCI_PM_CTRL) / 4U;
  const uint32_t control = config_space_.read(index);
  const uint32_t state = control & PCI_PM_CTRL_STATE_MASK;
  constexpr uint32_t kD0 = 0;
  constexpr uint32_t kD3Hot = 3;
  if (state == kD0 || state == kD3Hot) {
    power_state_ = state;
  } else {  // a state that we do not have is not entered (PCI Power Management 1.2 §3.2.4)
    config_space_.set_read_only(index, (control & ~PCI_PM_CTRL_STATE_MASK) | power_state_);
  }
}

}  // namespace crosvm
