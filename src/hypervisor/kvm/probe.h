#pragma once

#include <string>

#include "base/result.h"
#include "hypervisor/x86_64/hypervisor.h"

namespace crosvm {

/// Whether a hypervisor can run a stock x86_64 kernel.
struct StockGuestProbe {
  bool can_run = false;
  std::string instruction{};  ///< what it stopped at, e.g. "cmpxchg16b"; empty when it can run
  std::string cause{};        ///< how it stopped, for people; empty when it can run
};

/// Runs a tiny guest in 64-bit mode that executes what an incomplete KVM stops at: cmpxchg16b,
/// xsave, xrstor, int3 through an IDT, iretq. Takes a few milliseconds, and gives up after a
/// second. Errors: what kept the guest from being built at all.
Result<StockGuestProbe> probe_stock_guest(x86_64::Hypervisor& hypervisor);

}  // namespace crosvm
