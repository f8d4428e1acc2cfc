#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hypervisor/hypervisor.h"
#include "hypervisor/x86_64/cpu_state.h"

/// What an x86_64 machine needs of a hypervisor beyond the neutral interfaces.
namespace crosvm::x86_64 {

class Vcpu : public crosvm::Vcpu {
 public:
  virtual Result<Registers> registers() = 0;
  virtual Result<void> set_registers(const Registers& registers) = 0;
  virtual Result<SystemRegisters> system_registers() = 0;
  virtual Result<void> set_system_registers(const SystemRegisters& registers) = 0;
  /// x87 control word 0x37F and MXCSR 0x1F80, the rest zero: the state after FNINIT.
  virtual Result<void> reset_fpu() = 0;
  /// Values for `indexes`, in order. Errors: not_supported naming the first MSR refused.
  virtual Result<std::vector<Msr>> msrs(std::span<const uint32_t> indexes) = 0;
  virtual Result<void> set_msrs(std::span<const Msr> msrs) = 0;
  virtual Result<void> set_cpuid(std::span<const CpuidEntry> entries) = 0;
  virtual Result<LapicState> lapic() = 0;
  virtual Result<void> set_lapic(const LapicState& state) = 0;
};

class Vm : public crosvm::Vm {
 public:
  /// Places the three pages of the TSS and the page of the identity map that Intel hosts need;
  /// before any vCPU. KVM API 4.40, 4.41.
  virtual Result<void> set_reserved_pages(GuestAddress tss, GuestAddress identity_map) = 0;
  /// PIC pair, IOAPIC (24 pins), LAPICs and PIT in the kernel. After `map_ram`: each memory slot
  /// added later costs milliseconds. Chips are counted 0 PIC primary, 1 PIC secondary, 2 IOAPIC.
  virtual Result<void> create_kernel_irqchip() = 0;
  virtual Result<std::unique_ptr<Vcpu>> create_vcpu(uint32_t id) = 0;
};

class Hypervisor {
 public:
  virtual ~Hypervisor() = default;
  virtual Result<std::unique_ptr<Vm>> create_vm() = 0;
  /// All CPUID leaves the backend can give a guest.
  virtual Result<std::vector<CpuidEntry>> supported_cpuid() = 0;
  virtual uint32_t max_vcpus() = 0;
  /// The backend has a deadline timer in its LAPIC.
  virtual bool has_tsc_deadline_timer() = 0;
};

}  // namespace crosvm::x86_64
