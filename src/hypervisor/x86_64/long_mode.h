#pragma once

#include <span>

#include "hypervisor/x86_64/hypervisor.h"
#include "memory/guest_memory.h"

/// Starting bare-metal code in 64-bit mode, for probes, tests and benchmarks: no firmware, no
/// kernel.
namespace crosvm::x86_64 {

/// RAM that such a guest needs from address 0, and where its parts stand. The first 4 GiB are
/// identity-mapped with 2 MiB pages; all is writable and executable by the guest's ring 0.
inline constexpr uint64_t kBareRamBytes = 2 << 20;
inline constexpr GuestAddress kBareCode{0x10000};      ///< code, at most 64 KiB
inline constexpr GuestAddress kBareData{0x20000};      ///< 64 KiB for the code's own use
inline constexpr GuestAddress kBareStackTop{0x40000};  ///< the stack grows down from here

/// Copies `code` to kBareCode, writes page tables and an empty IDT, and sets `vcpu` to run the code
/// in ring 0 with interrupts disabled and rsp at kBareStackTop; `registers` gives the rest but for
/// rip, rsp and rflags. `extra_cr4` is added to CR4. Errors: of the vCPU, or bad_address when the
/// memory is too small.
Result<void> enter_long_mode(const GuestMemory& memory, Vcpu& vcpu, std::span<const std::byte> code,
                             Registers registers = {}, uint64_t extra_cr4 = 0);

/// Points `vector` of the IDT to `handler`, as an interrupt gate.
Result<void> set_interrupt_gate(const GuestMemory& memory, uint8_t vector, GuestAddress handler);

}  // namespace crosvm::x86_64
