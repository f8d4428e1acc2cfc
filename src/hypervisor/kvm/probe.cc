#include "hypervisor/kvm/probe.h"

#include <algorithm>
#include <chrono>

#include "base/format.h"
#include "hypervisor/kvm/probe_abi.h"
#include "hypervisor/vcpu_kick.h"
#include "hypervisor/x86_64/long_mode.h"

extern "C" {
extern const std::byte kvm_probe_start[];
extern const std::byte kvm_probe_int3_handler[];
extern const std::byte kvm_probe_end[];
}

namespace crosvm {
namespace {

using Kind = VcpuExit::Kind;

constexpr auto kPatience =
    std::chrono::seconds(5);  // in an emulated machine it takes half a second
constexpr uint8_t kBreakpointVector = 3;
constexpr uint64_t kCr4Osxsave = 1 << 18;

/// Remembers the last step that the guest began.
class StepRecorder : public IoHandler {
 public:
  void port_read(uint16_t, std::span<std::byte>) override {}
  void port_write(uint16_t port, std::span<const std::byte> data) override {
    if (port != PROBE_PORT || data.size() != 1) return;
    const auto value = std::to_integer<uint8_t>(data[0]);
    (value == PROBE_STEP_DONE || value == PROBE_STEP_WRONG ? end_ : step_) = value;
  }
  void mmio_read(GuestAddress, std::span<std::byte>) override {}
  void mmio_write(GuestAddress, std::span<const std::byte>) override {}

  uint8_t step() const { return step_; }
  uint8_t end() const { return end_; }  // 0 until DONE or WRONG

 private:
  uint8_t step_ = 0;
  uint8_t end_ = 0;
};

std::string instruction_of(uint8_t step) {
  switch (step) {
    case PROBE_STEP_CMPXCHG16B:
      return "cmpxchg16b";
    case PROBE_STEP_XSETBV:
      return "xsetbv";
    case PROBE_STEP_XSAVE:
      return "xsave";
    case PROBE_STEP_XRSTOR:
      return "xrstor";
    case PROBE_STEP_INT3:
      return "int3";
    case PROBE_STEP_IRETQ:
      return "iretq";
    default:
      return "the first instruction";
  }
}

/// What the guest may use, as PROBE_HAS_* bits; stock kernels go by the same CPUID bits.
uint64_t features_in(std::span<const x86_64::CpuidEntry> cpuid) {
  constexpr uint32_t kEcxCx16 = 1 << 13, kEcxXsave = 1 << 26;
  const auto leaf =
      std::ranges::find_if(cpuid, [](const auto& entry) { return entry.function == 1; });
  if (leaf == cpuid.end()) return 0;
  return ((leaf->ecx & kEcxCx16) != 0 ? PROBE_HAS_CX16 : 0) |
         ((leaf->ecx & kEcxXsave) != 0 ? PROBE_HAS_XSAVE : 0);
}

std::string cause_of(const VcpuExit& exit, const std::string& registers) {
  switch (exit.kind) {
    case Kind::kInternalError:
      return format_text("the instruction cannot be emulated (KVM_EXIT_INTERNAL_ERROR {}); {}",
                         exit.detail, registers);
    case Kind::kShutdown:
      return format_text("the guest ended in a triple fault; {}", registers);
    case Kind::kFailEntry:
      return format_text("the guest could not be entered (reason {:#x}); {}", exit.detail,
                         registers);
    default:
      return format_text("unexpected exit {}; {}", exit.detail, registers);
  }
}

/// Runs until the guest says how it ended, or cannot go on; returns the cause, empty for success.
std::string run_to_end(Vcpu& vcpu, StepRecorder& steps) {
  const ScopedVcpuKick kick(vcpu);
  const KickTimer timer(kPatience);
  while (true) {
    const auto exit = vcpu.run(steps);
    if (!exit) return exit.error().what();
    if (steps.end() == PROBE_STEP_DONE) return {};
    if (steps.end() == PROBE_STEP_WRONG) return "its result was wrong; " + vcpu.describe();
    if (timer.expired()) return "it did not end within five seconds; " + vcpu.describe();
    if (exit->kind != Kind::kIo && exit->kind != Kind::kInterrupted) {
      return cause_of(*exit, vcpu.describe());
    }
  }
}

}  // namespace

Result<StockGuestProbe> probe_stock_guest(x86_64::Hypervisor& hypervisor) {
  constexpr RamRange kRam[] = {{{0}, x86_64::kBareRamBytes}};
  const GuestMemory memory = TRY(GuestMemory::create(kRam, {}));
  const auto vm = TRY(hypervisor.create_vm());
  TRY(vm->map_ram(memory));
  const auto vcpu = TRY(vm->create_vcpu(0));
  const auto cpuid = TRY(hypervisor.supported_cpuid());
  TRY(vcpu->set_cpuid(cpuid));

  x86_64::Registers registers;
  registers.rdi = features_in(cpuid);
  registers.rsi = x86_64::kBareData.value;
  const bool has_xsave = (registers.rdi & PROBE_HAS_XSAVE) != 0;
  TRY(x86_64::enter_long_mode(memory, *vcpu, {kvm_probe_start, kvm_probe_end}, registers,
                              has_xsave ? kCr4Osxsave : 0));
  TRY(x86_64::set_interrupt_gate(
      memory, kBreakpointVector,
      x86_64::kBareCode + static_cast<uint64_t>(kvm_probe_int3_handler - kvm_probe_start)));

  StepRecorder steps;
  std::string cause = run_to_end(*vcpu, steps);
  if (cause.empty()) return StockGuestProbe{.can_run = true};
  return StockGuestProbe{.instruction = instruction_of(steps.step()), .cause = std::move(cause)};
}

}  // namespace crosvm
