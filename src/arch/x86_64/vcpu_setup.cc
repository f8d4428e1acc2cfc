#include "arch/x86_64/vcpu_setup.h"

#include <array>

#include "base/format.h"
#include "base/log.h"

namespace crosvm::x86_64 {
namespace {

Result<void> set_mtrrs(Vcpu& vcpu, AddressRange uncached, uint32_t physical_bits) {
  const std::vector<Msr> wanted = mtrr_msrs(uncached, physical_bits);
  const size_t pairs = wanted.size() / 2;  // the default type is the odd one
  const std::array<uint32_t, 1> index{kMtrrCapIndex};
  const std::vector<Msr> cap = TRY(vcpu.msrs(index));
  const size_t available = cap.empty() ? 0 : cap.front().value & 0xFF;
  if (available < pairs) {
    log::warn("vCPU {} has {} variable MTRRs, {} are needed: leaving all MTRRs as they are",
              vcpu.id(), available, pairs);
    return {};
  }
  return vcpu.set_msrs(wanted);
}

Result<void> configure(Vcpu& vcpu, const VcpuBoot& boot) {
  const std::vector<CpuidEntry> cpuid =
      TRY(filter_cpuid(boot.supported_cpuid, boot.cpuid, host_cpuid));
  TRY(vcpu.set_cpuid(cpuid));
  TRY(vcpu.set_msrs(boot_msrs(boot.mode)));
  const uint32_t bits = physical_address_bits(
      [&cpuid](uint32_t leaf, uint32_t subleaf) { return lookup_cpuid(cpuid, leaf, subleaf); });
  TRY(set_mtrrs(vcpu, boot.uncached, bits));
  if (boot.registers) {
    const SystemRegisters reset = TRY(vcpu.system_registers());
    TRY(vcpu.set_system_registers(boot_system_registers(boot.mode, reset)));
    TRY(vcpu.set_registers(*boot.registers));
  }
  TRY(vcpu.reset_fpu());
  LapicState lapic = TRY(vcpu.lapic());
  set_boot_lints(lapic);
  return vcpu.set_lapic(lapic);
}

}  // namespace

AddressRange uncached_range(const MemoryLayout& layout) {
  return {layout.low_mmio.start, kFourGiB.value - layout.low_mmio.start.value};
}

Result<void> configure_vcpu(Vcpu& vcpu, const VcpuBoot& boot) {
  return with_context(configure(vcpu, boot), format_text("vCPU {}", vcpu.id()));
}

}  // namespace crosvm::x86_64
