#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "hypervisor/kvm/kvm.h"
#include "hypervisor/kvm/test_abi.h"
#include "hypervisor/vcpu_kick.h"
#include "hypervisor/x86_64/irq_routes.h"
#include "hypervisor/x86_64/long_mode.h"
#include "memory/guest_memory.h"

#define DECLARE_PAYLOAD(name)                              \
  extern "C" const std::byte payload_##name##_start[];     \
  extern "C" const std::byte payload_##name##_end[];       \
  inline std::span<const std::byte> name##_payload() {     \
    return {payload_##name##_start, payload_##name##_end}; \
  }

/// Running the guests of kvm/test_payloads.S on /dev/kvm.
namespace crosvm::test {

DECLARE_PAYLOAD(ports)
DECLARE_PAYLOAD(string_io)
DECLARE_PAYLOAD(mmio)
DECLARE_PAYLOAD(exchange)
DECLARE_PAYLOAD(doorbells)
DECLARE_PAYLOAD(cpuid)
DECLARE_PAYLOAD(spin)
DECLARE_PAYLOAD(triple_fault)
DECLARE_PAYLOAD(interrupts)

/// One access that reached us.
struct Access {
  enum class Kind { kPortRead, kPortWrite, kMmioRead, kMmioWrite };
  Kind kind;
  uint64_t address;
  size_t length;
  uint64_t value = 0;  ///< what was written, or what we answered

  friend bool operator==(const Access&, const Access&) = default;
};
inline void PrintTo(const Access& access, std::ostream* out) {
  *out << "{kind " << static_cast<int>(access.kind) << ", address 0x" << std::hex << access.address
       << ", length " << access.length << ", value 0x" << access.value << "}";
}

/// Keeps all accesses, and answers reads from `answers`, then with ones.
class RecordingIo : public IoHandler {
 public:
  void port_read(uint16_t port, std::span<std::byte> data) override {
    answer(Access::Kind::kPortRead, port, data);
  }
  void port_write(uint16_t port, std::span<const std::byte> data) override {
    if (port == TEST_DONE_PORT) {
      done = true;
    } else {
      record(Access::Kind::kPortWrite, port, data);
    }
  }
  void mmio_read(GuestAddress address, std::span<std::byte> data) override {
    answer(Access::Kind::kMmioRead, address.value, data);
  }
  void mmio_write(GuestAddress address, std::span<const std::byte> data) override {
    record(Access::Kind::kMmioWrite, address.value, data);
  }

  std::vector<Access> accesses;
  std::deque<uint64_t> answers;
  bool done = false;

 private:
  void record(Access::Kind kind, uint64_t address, std::span<const std::byte> data) {
    uint64_t value = 0;
    std::memcpy(&value, data.data(), data.size());
    accesses.push_back({kind, address, data.size(), value});
  }
  void answer(Access::Kind kind, uint64_t address, std::span<std::byte> data) {
    for (const std::byte byte : data) EXPECT_EQ(byte, std::byte{0});
    uint64_t value = UINT64_MAX;
    if (!answers.empty()) {
      value = answers.front();
      answers.pop_front();
    }
    std::memcpy(data.data(), &value, data.size());
    record(kind, address, data);
  }
};

/// A VM with kBareRamBytes of RAM and one vCPU. Skips the test where /dev/kvm does not open.
class KvmTest : public testing::Test {
 protected:
  enum class Irqchip { kNone, kKernel };
  explicit KvmTest(Irqchip irqchip = Irqchip::kNone) : irqchip_(irqchip) {}

  void SetUp() override {
    auto opened = open_kvm("/dev/kvm");
    if (!opened) GTEST_SKIP() << opened.error().what();
    hypervisor_ = *std::move(opened);
    vm_ = must(hypervisor_->create_vm());
    must(vm_->map_ram(memory_));
    if (irqchip_ == Irqchip::kKernel) {
      must(vm_->set_reserved_pages({0xfffbd000}, {0xfffbc000}));
      must(vm_->create_kernel_irqchip());
    }
    vcpu_ = must(vm_->create_vcpu(0));
    must(vcpu_->set_cpuid(must(hypervisor_->supported_cpuid())));
  }

  /// The value; a failure of the test with the error's sentence otherwise.
  template <class T>
  static T must(Result<T> result) {
    if (!result) ADD_FAILURE() << result.error().what();
    CHECK(result.has_value());
    if constexpr (!std::is_void_v<T>) return *std::move(result);
  }

  void load(std::span<const std::byte> payload, const x86_64::Registers& registers = {}) {
    must(x86_64::enter_long_mode(memory_, *vcpu_, payload, registers));
  }

  /// Runs until the guest is done, `enough` holds, or an exit that the IoHandler cannot answer;
  /// that one is returned. Fails the test after ten seconds.
  VcpuExit run(const std::function<bool()>& enough = [] { return false; }) {
    const ScopedVcpuKick kick(*vcpu_);
    const KickTimer timer(std::chrono::seconds(10));
    while (true) {
      const VcpuExit exit = must(vcpu_->run(io_));
      if (timer.expired()) {
        ADD_FAILURE() << "the guest did not end: " << vcpu_->describe();
        return exit;
      }
      if (exit.kind == VcpuExit::Kind::kInterrupted) continue;  // some other signal
      if (exit.kind != VcpuExit::Kind::kIo || io_.done || enough()) return exit;
    }
  }
  /// The same, for a guest that must come to its end.
  void run_to_done() {
    const VcpuExit exit = run();
    ASSERT_TRUE(io_.done) << "exit " << static_cast<int>(exit.kind) << " " << vcpu_->describe();
  }

  const Irqchip irqchip_;
  GuestMemory memory_ = must(GuestMemory::create(kRam, {}));
  std::unique_ptr<x86_64::Hypervisor> hypervisor_;
  std::unique_ptr<x86_64::Vm> vm_;
  std::unique_ptr<x86_64::Vcpu> vcpu_;
  RecordingIo io_;

 private:
  static constexpr RamRange kRam[] = {{{0}, x86_64::kBareRamBytes}};
};

}  // namespace crosvm::test
