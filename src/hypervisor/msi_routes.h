#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <vector>

#include "base/result.h"
#include "hypervisor/hypervisor.h"

namespace crosvm {

/// The VM's interrupt routing table: the fixed routes of pins, and a GSI for each MSI that is in
/// use. Thread-safe.
class MsiRoutes {
 public:
  /// `fixed`, with which the VM starts, stays in the table; MSIs get GSIs from `first_gsi` to
  /// `last_gsi`. `vm` outlives this.
  MsiRoutes(Vm& vm, std::vector<IrqRoute> fixed, uint32_t first_gsi, uint32_t last_gsi = 1023);

  /// A GSI that raises `message`, until `release`. Errors: no_space_on_device when all are taken,
  /// else the errno of the hypervisor.
  Result<uint32_t> allocate(const MsiMessage& message);
  /// The GSI raises another message from now on. A message that is the same costs nothing. Errors:
  /// the errno of the hypervisor, and the message stays what it was.
  Result<void> update(uint32_t gsi, const MsiMessage& message);
  /// No irqfd may be left on `gsi`.
  void release(uint32_t gsi);

 private:
  Result<void> push();

  Vm& vm_;
  const std::vector<IrqRoute> fixed_;
  const uint32_t first_gsi_;
  const uint32_t last_gsi_;
  std::mutex mutex_;
  std::map<uint32_t, MsiMessage> messages_;
};

}  // namespace crosvm
