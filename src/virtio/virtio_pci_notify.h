#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/log_limit.h"
#include "base/result.h"
#include "hypervisor/hypervisor.h"

namespace crosvm::virtio_pci {

/// The driver's notifications (virtio 1.3 §4.1.5.2): an eventfd for each queue, which the
/// hypervisor signals at the queue's notify address while the queue is live and BAR 0 decoded.
///
/// Each ioeventfd costs the VM a grace period, so those of queues that no driver uses are not
/// registered. Where one cannot be had, the notification comes as a write to the BAR.
/// Not thread-safe but for `signal` and `kick`.
class Notifications {
 public:
  /// `vm` outlives this; `label` names the device in logs. Errors: the errno of eventfd.
  static Result<Notifications> create(Vm& vm, std::string label, size_t queues);
  Notifications(Notifications&&) noexcept = default;
  Notifications& operator=(Notifications&&) = delete;
  ~Notifications();

  /// The eventfd of queue `index`, one that exists; borrowed.
  const Fd& kick(uint16_t index) const { return queues_[index].kick; }
  /// A write at `offset` from the start of the notify region, of any size. False: no queue's.
  bool signal(uint64_t offset) const;

  /// Where BAR 0 is decoded; none: nowhere.
  void set_bar_address(std::optional<uint64_t> address);
  /// Whether the queue runs.
  void set_live(uint16_t index, bool live);
  void set_all_dead();

 private:
  struct Queue {
    Fd kick;
    bool live = false;
    std::optional<uint64_t> registered;  // at this address
  };
  Notifications(Vm& vm, std::string label);
  /// Brings the registration of a queue in line with the facts.
  void follow(uint16_t index);

  Vm* vm_;
  std::string label_;
  std::vector<Queue> queues_;
  std::optional<uint64_t> bar_address_;
  std::unique_ptr<LogLimit> failures_;
};

}  // namespace crosvm::virtio_pci
