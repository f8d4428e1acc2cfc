#pragma once

#include <optional>
#include <span>

#include "arch/x86_64/boot_state.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/linux_boot.h"
#include "base/result.h"
#include "hypervisor/x86_64/hypervisor.h"

namespace crosvm::x86_64 {

/// How one vCPU is made ready for its first instruction.
struct VcpuBoot {
  std::span<const CpuidEntry> supported_cpuid;  ///< of Hypervisor::supported_cpuid
  CpuidOptions cpuid;                           ///< with this vCPU's id
  EntryMode mode = EntryMode::kLong64;
  std::optional<Registers> registers;  ///< for the first vCPU alone; others wait for INIT and SIPI
  AddressRange uncached;               ///< from the low MMIO window to 4 GiB: see uncached_range
};

/// What the MTRRs make uncached: all from the low MMIO window to 4 GiB.
AddressRange uncached_range(const MemoryLayout& layout);

/// Sets CPUID, MSRs, MTRRs, FPU, LINTs and, for the first vCPU, its registers. On the thread that
/// will run the vCPU: brand and cache leaves are those of the processor it runs on. A vCPU with
/// too few MTRRs gets none, with a warning. Errors: those of filter_cpuid and of the calls, naming
/// the vCPU.
Result<void> configure_vcpu(Vcpu& vcpu, const VcpuBoot& boot);

}  // namespace crosvm::x86_64
