#include "virtio/virtio_pci_registers.h"

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include <bit>

namespace crosvm::virtio_pci {
namespace {

constexpr uint8_t kReady = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
                           VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
/// What a driver may set. Others are the device's or of no version that we know.
constexpr uint8_t kDriverBits = kReady | VIRTIO_CONFIG_S_FAILED;
constexpr uint64_t bit(unsigned feature) { return 1ULL << feature; }

/// Bytes of the register that starts at `offset`; 0: none does.
size_t width(uint64_t offset) {
  switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
    case VIRTIO_PCI_COMMON_DF:
    case VIRTIO_PCI_COMMON_GFSELECT:
    case VIRTIO_PCI_COMMON_GF:
      return 4;
    case VIRTIO_PCI_COMMON_STATUS:
    case VIRTIO_PCI_COMMON_CFGGENERATION:
      return 1;
    case VIRTIO_PCI_COMMON_MSIX:
    case VIRTIO_PCI_COMMON_NUMQ:
    case VIRTIO_PCI_COMMON_Q_SELECT:
    case VIRTIO_PCI_COMMON_Q_SIZE:
    case VIRTIO_PCI_COMMON_Q_MSIX:
    case VIRTIO_PCI_COMMON_Q_ENABLE:
    case VIRTIO_PCI_COMMON_Q_NOFF:
    case VIRTIO_PCI_COMMON_Q_NDATA:
    case VIRTIO_PCI_COMMON_Q_RESET:
      return 2;
    default:
      return 0;
  }
}

/// Whether the access is to (half of) a queue address.
bool is_address(uint64_t offset, size_t size) {
  return offset >= VIRTIO_PCI_COMMON_Q_DESCLO && offset < VIRTIO_PCI_COMMON_Q_NDATA &&
         (size == 4 || size == 8) && offset % size == 0;
}

/// The address that the register belongs to. `Addresses` is const or not.
template <class Addresses>
auto& address_at(Addresses& addresses, uint64_t offset) {
  if (offset < VIRTIO_PCI_COMMON_Q_AVAILLO) return addresses.descriptor_area.value;
  if (offset < VIRTIO_PCI_COMMON_Q_USEDLO) return addresses.driver_area.value;
  return addresses.device_area.value;
}

constexpr uint32_t page(uint64_t features, uint32_t select) {
  return select < 2 ? static_cast<uint32_t>(features >> (32 * select)) : 0;
}

}  // namespace

CommonRegisters::CommonRegisters(uint64_t offered_features, std::span<const uint16_t> queue_sizes,
                                 PciInterrupts& interrupts)
    : offered_(offered_features), interrupts_(interrupts) {
  for (uint16_t size : queue_sizes) queues_.push_back({.largest = size, .size = size});
}

const CommonRegisters::Queue* CommonRegisters::selected() const {
  return queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr;
}
CommonRegisters::Queue* CommonRegisters::selected() {
  return queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr;
}

std::optional<uint64_t> CommonRegisters::read(uint64_t offset, size_t size) const {
  if (is_address(offset, size)) {
    if (selected() == nullptr) return 0;
    const uint64_t address = address_at(selected()->addresses, offset);
    return size == 8 ? address : static_cast<uint32_t>(address >> (8 * (offset % 8)));
  }
  if (size == 0 || size != width(offset)) return {};
  return offset > VIRTIO_PCI_COMMON_Q_SELECT ? read_queue(offset) : read_device(offset);
}

std::optional<uint64_t> CommonRegisters::read_device(uint64_t offset) const {
  switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
      return device_feature_select_;
    case VIRTIO_PCI_COMMON_DF:
      return page(offered_, device_feature_select_);
    case VIRTIO_PCI_COMMON_GFSELECT:
      return driver_feature_select_;
    case VIRTIO_PCI_COMMON_GF:
      return page(driver_features_, driver_feature_select_);
    case VIRTIO_PCI_COMMON_MSIX:
      return interrupts_.vector(kConfigEvent);
    case VIRTIO_PCI_COMMON_NUMQ:
      return queues_.size();
    case VIRTIO_PCI_COMMON_STATUS:
      return status_;
    case VIRTIO_PCI_COMMON_CFGGENERATION:
      return config_generation_;
    default:
      return queue_select_;
  }
}

std::optional<uint64_t> CommonRegisters::read_queue(uint64_t offset) const {
  const Queue* queue = selected();
  if (queue == nullptr) return 0;
  switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
      return queue->size;
    case VIRTIO_PCI_COMMON_Q_MSIX:
      return interrupts_.vector(queue_event(queue_select_));
    case VIRTIO_PCI_COMMON_Q_ENABLE:
      return queue->enabled ? 1 : 0;
    case VIRTIO_PCI_COMMON_Q_NOFF:
      return queue_select_;
    case VIRTIO_PCI_COMMON_Q_RESET:
      return queue->resetting ? 1 : 0;
    default:  // queue_notify_data is of a feature that is not offered
      return 0;
  }
}

CommonRegisters::Effect CommonRegisters::write(uint64_t offset, size_t size, uint64_t value) {
  if (is_address(offset, size)) return write_address(offset, size, value);
  if (size == 0 || size != width(offset)) return Effect::kIgnored;
  return offset > VIRTIO_PCI_COMMON_Q_SELECT ? write_queue(offset, value)
                                             : write_device(offset, value);
}

CommonRegisters::Effect CommonRegisters::write_device(uint64_t offset, uint64_t value) {
  switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
      device_feature_select_ = static_cast<uint32_t>(value);
      return Effect::kNone;
    case VIRTIO_PCI_COMMON_GFSELECT:
      driver_feature_select_ = static_cast<uint32_t>(value);
      return Effect::kNone;
    case VIRTIO_PCI_COMMON_GF:
      return write_driver_feature(static_cast<uint32_t>(value));
    case VIRTIO_PCI_COMMON_MSIX:
      return write_vector(kConfigEvent, value);
    case VIRTIO_PCI_COMMON_STATUS:
      return write_status(static_cast<uint8_t>(value));
    case VIRTIO_PCI_COMMON_Q_SELECT:
      queue_select_ = static_cast<uint16_t>(value);
      return Effect::kNone;
    default:  // read-only
      return Effect::kIgnored;
  }
}

CommonRegisters::Effect CommonRegisters::write_driver_feature(uint32_t value) {
  if ((status_ & VIRTIO_CONFIG_S_FEATURES_OK) != 0) return Effect::kIgnored;
  if (driver_feature_select_ >= 2) {
    if (value == 0) return Effect::kNone;
    unknown_features_ = true;
    return Effect::kIgnored;
  }
  const unsigned shift = 32 * driver_feature_select_;
  driver_features_ &= ~(uint64_t{~0U} << shift);
  driver_features_ |= uint64_t{value} << shift;
  return Effect::kNone;
}

CommonRegisters::Effect CommonRegisters::write_status(uint8_t value) {
  if (value == 0) return Effect::kReset;
  // A bit goes away by a reset alone (§2.1.1).
  uint8_t wanted = value & kDriverBits;
  const uint8_t added = wanted & ~status_;
  if ((added & VIRTIO_CONFIG_S_FEATURES_OK) != 0 && !features_acceptable()) {
    status_ |= wanted & ~VIRTIO_CONFIG_S_FEATURES_OK;
    return Effect::kFeaturesRefused;
  }
  status_ |= wanted;
  return Effect::kStatus;
}

bool CommonRegisters::features_acceptable() const {
  return (driver_features_ & ~offered_) == 0 && !unknown_features_ &&
         (driver_features_ & bit(VIRTIO_F_VERSION_1)) != 0;
}

CommonRegisters::Effect CommonRegisters::write_vector(size_t event, uint64_t value) {
  interrupts_.set_vector(event, static_cast<uint16_t>(value));  // one past the table: none
  return Effect::kNone;
}

bool CommonRegisters::size_acceptable(const Queue& queue, uint64_t size) const {
  const bool packed = (driver_features_ & bit(VIRTIO_F_RING_PACKED)) != 0;
  return size != 0 && size <= queue.largest && (packed || std::has_single_bit(size));
}

CommonRegisters::Effect CommonRegisters::write_queue(uint64_t offset, uint64_t value) {
  Queue* queue = selected();
  if (queue == nullptr || queue->resetting) return Effect::kIgnored;
  switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
      if (queue->enabled || !size_acceptable(*queue, value)) break;
      queue->size = static_cast<uint16_t>(value);
      return Effect::kNone;
    case VIRTIO_PCI_COMMON_Q_MSIX:
      return write_vector(queue_event(queue_select_), value);
    case VIRTIO_PCI_COMMON_Q_ENABLE:
      if (value != 1) break;
      if (queue->enabled) return Effect::kNone;
      queue->enabled = true;
      return Effect::kQueueEnabled;
    case VIRTIO_PCI_COMMON_Q_RESET:
      if (value != 1 || !queue->enabled || (status_ & VIRTIO_CONFIG_S_FEATURES_OK) == 0 ||
          (driver_features_ & bit(VIRTIO_F_RING_RESET)) == 0) {
        break;
      }
      queue->resetting = true;
      return Effect::kQueueReset;
    default:  // read-only
      break;
  }
  return Effect::kIgnored;
}

CommonRegisters::Effect CommonRegisters::write_address(uint64_t offset, size_t size,
                                                       uint64_t value) {
  Queue* queue = selected();
  if (queue == nullptr || queue->enabled) return Effect::kIgnored;
  uint64_t& address = address_at(queue->addresses, offset);
  if (size == 8) {
    address = value;
  } else {
    const unsigned shift = 8 * (offset % 8);
    address = (address & ~(uint64_t{~0U} << shift)) | value << shift;
  }
  return Effect::kNone;
}

bool CommonRegisters::driver_is_ready() const {
  return (status_ & kReady) == kReady && (status_ & VIRTIO_CONFIG_S_FAILED) == 0;
}

bool CommonRegisters::driver_ok() const { return (status_ & VIRTIO_CONFIG_S_DRIVER_OK) != 0; }

bool CommonRegisters::driver_present() const { return (status_ & VIRTIO_CONFIG_S_DRIVER) != 0; }

bool CommonRegisters::set_needs_reset() {
  if ((status_ & VIRTIO_CONFIG_S_NEEDS_RESET) != 0) return false;
  status_ |= VIRTIO_CONFIG_S_NEEDS_RESET;
  return true;
}

void CommonRegisters::finish_queue_reset(uint16_t index) {
  Queue& queue = queues_[index];
  queue = {.largest = queue.largest, .size = queue.largest};
  interrupts_.set_vector(queue_event(index), PciInterrupts::kNoVector);
}

void CommonRegisters::reset() {
  for (Queue& queue : queues_) queue = {.largest = queue.largest, .size = queue.largest};
  device_feature_select_ = 0;
  driver_feature_select_ = 0;
  driver_features_ = 0;
  unknown_features_ = false;
  status_ = 0;
  queue_select_ = 0;
  interrupts_.reset_events();
}

}  // namespace crosvm::virtio_pci
