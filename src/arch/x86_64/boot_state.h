#pragma once

#include <cstdint>
#include <vector>

#include "arch/x86_64/kernel_image.h"
#include "arch/x86_64/memory_map.h"
#include "base/result.h"
#include "hypervisor/x86_64/cpu_state.h"
#include "memory/guest_memory.h"

/// The processor's state at the kernel's first instruction (platform.md 1.8).
namespace crosvm::x86_64 {

/// Writes GDT, IDT and, for kLong64, page tables that map the first 4 GiB onto themselves.
/// Errors: bad_address when RAM is missing there.
Result<void> write_boot_tables(const GuestMemory& memory, EntryMode mode);

/// General registers of the first vCPU.
Registers boot_registers(EntryMode mode, uint64_t entry);

/// System registers of the first vCPU; `reset` is what it has now. Others stay at reset and wait
/// for INIT and SIPI.
SystemRegisters boot_system_registers(EntryMode mode, const SystemRegisters& reset);

/// Model-specific registers that every vCPU starts with.
std::vector<Msr> boot_msrs(EntryMode mode);

/// Variable MTRR pairs that make `uncached` UC (naturally aligned powers of two, lowest first),
/// then the default type write-back. `physical_bits` is the guest's.
std::vector<Msr> mtrr_msrs(AddressRange uncached, uint32_t physical_bits);

/// MTRRcap, whose low byte counts the variable pairs.
inline constexpr uint32_t kMtrrCapIndex = 0xFE;

/// Makes LINT0 deliver ExtINT and LINT1 NMI, leaving their masks alone.
void set_boot_lints(LapicState& lapic);

}  // namespace crosvm::x86_64
