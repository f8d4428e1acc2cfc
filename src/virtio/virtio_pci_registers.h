#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "pci/pci_interrupts.h"
#include "virtio/virtqueue.h"

namespace crosvm::virtio_pci {

/// The event of PciInterrupts that stands for a configuration change; queue `i` has 1 + i.
inline constexpr size_t kConfigEvent = 0;
constexpr size_t queue_event(uint16_t index) { return 1 + size_t{index}; }

/// The common configuration structure (virtio 1.3 §4.1.4.3): what a driver may read and write, in
/// whatever order. What follows from a write is the caller's to do. Not thread-safe.
///
/// A register answers an access of its own size at its own offset; the 64-bit queue addresses also
/// one of 8 bytes.
class CommonRegisters {
 public:
  struct Queue {
    uint16_t largest = 0;
    uint16_t size = 0;  ///< 1 to `largest`; a power of two but for packed rings
    bool enabled = false;
    bool resetting = false;  ///< enabled too, until the reset is complete
    VringAddresses addresses{};
  };
  /// What a write asks for beyond the value that it left.
  enum class Effect {
    kNone,
    kIgnored,          ///< nothing was written
    kReset,            ///< 0 was written to device_status, which stays what it is
    kStatus,           ///< bits were added to device_status
    kFeaturesRefused,  ///< likewise, but not FEATURES_OK, which was among them
    kQueueEnabled,     ///< the selected queue
    kQueueReset,       ///< the selected queue, which is `resetting` now
  };

  /// `interrupts` outlives this and keeps the vectors.
  CommonRegisters(uint64_t offered_features, std::span<const uint16_t> queue_sizes,
                  PciInterrupts& interrupts);

  /// Nothing: no register of that size there.
  std::optional<uint64_t> read(uint64_t offset, size_t size) const;
  Effect write(uint64_t offset, size_t size, uint64_t value);

  /// The driver has set up all that it wants to (§3.1.1) and has not given up.
  bool driver_is_ready() const;
  bool driver_ok() const;
  /// A driver is at work: DRIVER is set.
  bool driver_present() const;
  uint64_t driver_features() const { return driver_features_; }
  size_t queue_count() const { return queues_.size(); }
  const Queue& queue(uint16_t index) const { return queues_[index]; }
  uint16_t selected_queue() const { return queue_select_; }

  /// Sets DEVICE_NEEDS_RESET; false: it was set.
  bool set_needs_reset();
  void count_config_change() { ++config_generation_; }
  /// The queue has been reset: all its registers but its number are as at the start (§2.6.1).
  void finish_queue_reset(uint16_t index);
  /// The device has been reset. Generations go on counting.
  void reset();

 private:
  std::optional<uint64_t> read_device(uint64_t offset) const;
  std::optional<uint64_t> read_queue(uint64_t offset) const;
  Effect write_device(uint64_t offset, uint64_t value);
  Effect write_queue(uint64_t offset, uint64_t value);
  Effect write_address(uint64_t offset, size_t size, uint64_t value);
  Effect write_status(uint8_t value);
  Effect write_driver_feature(uint32_t value);
  Effect write_vector(size_t event, uint64_t value);
  bool features_acceptable() const;
  bool size_acceptable(const Queue& queue, uint64_t size) const;
  const Queue* selected() const;
  Queue* selected();

  const uint64_t offered_;
  PciInterrupts& interrupts_;
  std::vector<Queue> queues_;
  uint32_t device_feature_select_ = 0;
  uint32_t driver_feature_select_ = 0;
  uint64_t driver_features_ = 0;
  bool unknown_features_ = false;  // the driver wants bits above 63
  uint8_t status_ = 0;
  uint8_t config_generation_ = 0;
  uint16_t queue_select_ = 0;
};

}  // namespace crosvm::virtio_pci
