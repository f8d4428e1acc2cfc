#pragma once

#include <cstdint>

namespace crosvm::x86_64 {

/// How vCPUs appear to share cores of one package (platform.md 1.9, leaves 4 and 0x0B).
struct CpuTopology {
  uint32_t vcpus = 1;
  uint32_t threads_per_core = 1;
  uint32_t core_shift = 0;     ///< APIC id bits below the core's number
  uint32_t package_shift = 0;  ///< APIC id bits below the package's number

  uint32_t cores() const { return vcpus / threads_per_core; }
};

/// Without SMT each vCPU is a core. Otherwise an even count makes pairs, and an odd one makes one
/// core of all.
CpuTopology cpu_topology(uint32_t vcpus, bool smt);

}  // namespace crosvm::x86_64
