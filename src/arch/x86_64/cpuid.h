#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "arch/nested.h"
#include "base/result.h"
#include "hypervisor/x86_64/cpu_state.h"

namespace crosvm::x86_64 {

/// The four registers CPUID answers with.
struct CpuidRegisters {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// CPUID of a leaf and sub-leaf.
using CpuidFunction = std::function<CpuidRegisters(uint32_t leaf, uint32_t subleaf)>;

/// CPUID of the processor that the calling thread runs on.
CpuidRegisters host_cpuid(uint32_t leaf, uint32_t subleaf);

/// Bits of a physical address by leaf 0x80000008, 36 where that is missing.
uint32_t physical_address_bits(const CpuidFunction& cpuid);

struct CpuidOptions {
  uint32_t vcpu_id = 0;
  uint32_t vcpu_count = 1;
  bool smt = true;  ///< pairs of vCPUs share a core when their count is even
  Nested nested = Nested::kAuto;
  bool x2apic = true;        ///< the interrupt controller has it
  bool tsc_deadline = true;  ///< the LAPIC has a deadline timer
};

/// What CPUID tells vCPU `vcpu_id`: `supported` (all the hypervisor can give) with topology,
/// cache and brand leaves filled in (platform.md 1.9). `host` is asked for the latter. Pure.
/// Errors: not_supported for nested virtualisation that is demanded but not to be had.
Result<std::vector<CpuidEntry>> filter_cpuid(std::span<const CpuidEntry> supported,
                                             const CpuidOptions& options,
                                             const CpuidFunction& host);

/// The registers `entries` hold for a leaf and sub-leaf; zeros if none.
CpuidRegisters lookup_cpuid(std::span<const CpuidEntry> entries, uint32_t leaf, uint32_t subleaf);

}  // namespace crosvm::x86_64
