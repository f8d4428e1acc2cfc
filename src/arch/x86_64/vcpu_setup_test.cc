#include "arch/x86_64/vcpu_setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "arch/x86_64/test_images.h"
#include "hypervisor/kvm/kvm.h"
#include "hypervisor/vcpu_kick.h"

namespace crosvm::x86_64 {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint32_t kDefaultMtrrType = 0x2FF;

/// Keeps what it is told.
class FakeVcpu : public Vcpu {
 public:
  uint32_t id() const override { return 1; }
  Result<VcpuExit> run(IoHandler&) override { return VcpuExit{}; }
  void set_immediate_exit(bool) override {}
  void notify_paused() override {}
  std::string describe() override { return ""; }
  Result<Registers> registers() override { return general.value_or(Registers{}); }
  Result<void> set_registers(const Registers& registers) override {
    general = registers;
    return {};
  }
  Result<SystemRegisters> system_registers() override { return SystemRegisters{}; }
  Result<void> set_system_registers(const SystemRegisters& registers) override {
    system = registers;
    return {};
  }
  Result<void> reset_fpu() override {
    fpu_is_reset = true;
    return {};
  }
  Result<std::vector<Msr>> msrs(std::span<const uint32_t> indexes) override {
    std::vector<Msr> values;
    for (uint32_t index : indexes) values.push_back({index, msr_values[index]});
    return values;
  }
  Result<void> set_msrs(std::span<const Msr> msrs) override {
    for (const Msr& msr : msrs) msr_values[msr.index] = msr.value;
    return {};
  }
  Result<void> set_cpuid(std::span<const CpuidEntry> entries) override {
    cpuid.assign(entries.begin(), entries.end());
    return {};
  }
  Result<LapicState> lapic() override { return lapic_state; }
  Result<void> set_lapic(const LapicState& state) override {
    lapic_state = state;
    return {};
  }

  std::optional<Registers> general;
  std::optional<SystemRegisters> system;
  bool fpu_is_reset = false;
  std::map<uint32_t, uint64_t> msr_values = {{kMtrrCapIndex, 8}};
  std::vector<CpuidEntry> cpuid;
  LapicState lapic_state;
};

const std::vector<CpuidEntry> kSupported = {{.function = 1},
                                            {.function = 0x80000000, .eax = 0x80000008},
                                            {.function = 0x80000008, .eax = 0x3028}};

VcpuBoot boot_of(std::optional<Registers> registers) {
  return {.supported_cpuid = kSupported,
          .cpuid = {.vcpu_id = 1, .vcpu_count = 2},
          .mode = EntryMode::kLong64,
          .registers = registers,
          .uncached = uncached_range(*plan_memory({.host_physical_bits = 40}))};
}

TEST(ConfigureVcpu, FirstVcpuGetsRegisters) {
  FakeVcpu vcpu;
  ASSERT_TRUE(configure_vcpu(vcpu, boot_of(boot_registers(EntryMode::kLong64, 0x200200))));
  EXPECT_EQ(vcpu.general->rip, 0x200200u);
  EXPECT_EQ(vcpu.system->cr3, 0x9000u);
}

TEST(ConfigureVcpu, OthersStayAtResetButGetAllElse) {
  FakeVcpu vcpu;
  ASSERT_TRUE(configure_vcpu(vcpu, boot_of(std::nullopt)));
  EXPECT_FALSE(vcpu.general.has_value());
  EXPECT_FALSE(vcpu.system.has_value());
  EXPECT_TRUE(vcpu.fpu_is_reset);
  EXPECT_EQ(vcpu.msr_values.at(0x1A0), 1u);
  EXPECT_EQ(vcpu.msr_values.at(kDefaultMtrrType), 0x806u);
  EXPECT_EQ(vcpu.msr_values.at(0x201), 0xFFF0000800u) << "40 address bits, as CPUID says";
  EXPECT_EQ(vcpu.lapic_state.words[0x350 / 4], 0x700u);
  EXPECT_EQ(lookup_cpuid(vcpu.cpuid, 1, 0).ebx >> 24, 1u);
}

TEST(ConfigureVcpu, TooFewMtrrsLeavesThemAllAlone) {
  FakeVcpu vcpu;
  vcpu.msr_values[kMtrrCapIndex] = 1;
  ASSERT_TRUE(configure_vcpu(vcpu, boot_of(std::nullopt)));
  EXPECT_FALSE(vcpu.msr_values.contains(0x200));
  EXPECT_FALSE(vcpu.msr_values.contains(kDefaultMtrrType));
}

TEST(ConfigureVcpu, ErrorsNameTheVcpu) {
  FakeVcpu vcpu;
  VcpuBoot boot = boot_of(std::nullopt);
  boot.cpuid.nested = Nested::kOn;
  EXPECT_THAT(error_of(configure_vcpu(vcpu, boot)), HasSubstr("vCPU 1: nested"));
}

/// Collects what the guest writes to port 0x80.
class PortRecorder : public IoHandler {
 public:
  void port_read(uint16_t, std::span<std::byte>) override {}
  void port_write(uint16_t port, std::span<const std::byte> data) override {
    uint32_t value = 0;
    std::memcpy(&value, data.data(), std::min(data.size(), sizeof(value)));
    if (port == 0x80) values.push_back(value);
  }
  void mmio_read(GuestAddress, std::span<std::byte>) override {}
  void mmio_write(GuestAddress, std::span<const std::byte>) override {}

  std::vector<uint32_t> values;
};

/// Boots kernels of a few instructions on /dev/kvm.
class KvmBoot : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = open_kvm("/dev/kvm");
    if (!opened) GTEST_SKIP() << opened.error().what();
    hypervisor_ = *std::move(opened);
  }

  template <class T>
  static T must(Result<T> result) {
    if (!result) ADD_FAILURE() << result.error().what();
    CHECK(result.has_value());
    if constexpr (!std::is_void_v<T>) return *std::move(result);
  }

  /// Boots `kernel` until it has written `count` values; yields them.
  std::vector<uint32_t> run(const Bytes& kernel, KernelEntry entry, size_t count) {
    const Fd fd = memfd_of(kernel);
    const x86_64::BootState state = must(load_linux(
        machine_.memory, machine_.layout,
        {.kernel = {fd, "k.img"}, .initrd = {}, .command_line = "hello", .entry = entry}));
    auto vm = must(hypervisor_->create_vm());
    must(vm->map_ram(machine_.memory));
    must(vm->set_reserved_pages(kTss, kIdentityMap));
    must(vm->create_kernel_irqchip());
    auto vcpu = must(vm->create_vcpu(0));
    const auto supported = must(hypervisor_->supported_cpuid());
    must(configure_vcpu(*vcpu, {.supported_cpuid = supported,
                                .cpuid = {.vcpu_count = 4},
                                .mode = state.mode,
                                .registers = state.registers,
                                .uncached = uncached_range(machine_.layout)}));
    PortRecorder io;
    const ScopedVcpuKick kick(*vcpu);
    const KickTimer timer(std::chrono::seconds(10));
    while (io.values.size() < count && !timer.expired()) {
      const VcpuExit exit = must(vcpu->run(io));
      if (exit.kind == VcpuExit::Kind::kIo || exit.kind == VcpuExit::Kind::kInterrupted) continue;
      ADD_FAILURE() << "exit " << static_cast<int>(exit.kind) << " detail " << exit.detail << " "
                    << vcpu->describe();
      break;
    }
    return io.values;
  }

  Machine machine_{64};
  std::unique_ptr<Hypervisor> hypervisor_;
};

Bytes code(std::initializer_list<uint8_t> bytes) {
  Bytes result;
  for (uint8_t byte : bytes) result.push_back(std::byte{byte});
  return result;
}

// Each part writes EAX to port 0x80. They mean the same in 32- and in 64-bit mode.
const std::initializer_list<uint8_t> kMain = {
    0x89, 0xF0, 0xE7, 0x80,                          // mov eax, esi; out
    0x8B, 0x86, 0x02, 0x02, 0x00, 0x00, 0xE7, 0x80,  // mov eax, [rsi+0x202]; out
    0x8B, 0x86, 0x28, 0x02, 0x00, 0x00, 0xE7, 0x80,  // mov eax, [rsi+0x228]; out
    0x8B, 0x00, 0xE7, 0x80,                          // mov eax, [rax]; out
    0x50, 0x58,                                      // push rax; pop rax
    0x66, 0xB8, 0x18, 0x00, 0x8E, 0xD8,              // mov ax, 0x18; mov ds, ax
    0x8B, 0x06,                                      // mov eax, [rsi]: through the new DS
    0xB8, 0x0B, 0x00, 0x00, 0x00,                    // mov eax, 0xB
    0xB9, 0x01, 0x00, 0x00, 0x00,                    // mov ecx, 1
    0x0F, 0xA2, 0x89, 0xD8, 0xE7, 0x80,              // cpuid; mov eax, ebx; out
    0xB9, 0xFF, 0x02, 0x00, 0x00,                    // mov ecx, 0x2FF
    0x0F, 0x32, 0xE7, 0x80,                          // rdmsr; out
    0xF4,                                            // hlt
};

constexpr uint32_t kHell = 0x6C6C6568;

TEST_F(KvmBoot, LongMode) {
  const Bytes kernel = elf64({.entry = 0x1000000, .segments = {{.data = code(kMain)}}});
  EXPECT_THAT(run(kernel, KernelEntry::kAuto, 6),
              ElementsAre(0x7000, 0x53726448, 0x20000, kHell, 4, 0x806));
}

TEST_F(KvmBoot, FlatMode) {
  const Bytes kernel = elf32({.entry = 0x1000000, .segments = {{.data = code(kMain)}}});
  EXPECT_THAT(run(kernel, KernelEntry::kAuto, 6),
              ElementsAre(0x7000, 0x53726448, 0x20000, kHell, 4, 0x806));
}

TEST_F(KvmBoot, Pvh) {
  const Bytes kernel = elf64({.entry = 0x1000000,
                              .segments = {{.data = code({
                                                0x8B,
                                                0x03,
                                                0xE7,
                                                0x80,  // mov eax, [ebx]
                                                0x8B,
                                                0x43,
                                                0x18,  // mov eax, [ebx+24]
                                                0x8B,
                                                0x00,
                                                0xE7,
                                                0x80,  // mov eax, [eax]
                                                0x0F,
                                                0x20,
                                                0xC0,
                                                0xE7,
                                                0x80,  // mov eax, cr0
                                                0xF4,
                                            })}},
                              .notes = pvh_notes(0x1000000)});
  EXPECT_THAT(run(kernel, KernelEntry::kPvh, 3), ElementsAre(0x336EC578, kHell, 0x11));
}

}  // namespace
}  // namespace crosvm::x86_64
