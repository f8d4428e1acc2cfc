#include "hypervisor/kvm/test_rig.h"

extern "C" {
extern const std::byte payload_interrupts_edge_41[];
extern const std::byte payload_interrupts_level_42[];
}

namespace crosvm::test {
namespace {

using testing::HasSubstr;

constexpr uint8_t kEdgeVector = 0x41;
constexpr uint8_t kLevelVector = 0x42;
constexpr uint32_t kLevelTriggered = 1 << 15;
constexpr uint32_t kPin = 11;  // of the IOAPIC, and its GSI
constexpr uint32_t kMsiGsi = 24;
constexpr MsiMessage kMsi{.address = 0xfee00000, .data = kEdgeVector};

class KvmInterruptTest : public KvmTest {
 protected:
  KvmInterruptTest() : KvmTest(Irqchip::kKernel) {}

  /// Runs the guest until it takes interrupts; IOAPIC pin kPin gets the redirection entry `entry`.
  void start(uint32_t entry) {
    x86_64::Registers registers;
    registers.rdi = kPin;
    registers.rsi = entry;
    load(interrupts_payload(), registers);
    const auto address_of = [](const std::byte* handler) {
      return x86_64::kBareCode + static_cast<uint64_t>(handler - payload_interrupts_start);
    };
    must(x86_64::set_interrupt_gate(memory_, kEdgeVector, address_of(payload_interrupts_edge_41)));
    must(
        x86_64::set_interrupt_gate(memory_, kLevelVector, address_of(payload_interrupts_level_42)));
    run([this] { return !io_.accesses.empty(); });
    ASSERT_THAT(io_.accesses, testing::SizeIs(1)) << vcpu_->describe();
    io_.accesses.clear();
  }
  /// Runs the guest until its next interrupt handler is through; returns the vector.
  uint8_t next_interrupt() {
    const VcpuExit exit = run([this] { return !io_.accesses.empty(); });
    if (io_.accesses.size() != 1) {
      ADD_FAILURE() << "exit " << static_cast<int>(exit.kind) << " detail " << exit.detail << "; "
                    << vcpu_->describe();
      return 0;
    }
    const Access access = io_.accesses[0];
    io_.accesses.clear();
    EXPECT_EQ(access.address, uint64_t{TEST_IRQ_PORT});
    return static_cast<uint8_t>(access.value);
  }
  /// Lets the guest run for a while; returns how many interrupts it took.
  size_t interrupts_in_a_while() {
    const ScopedVcpuKick kick(*vcpu_);
    const KickTimer timer(std::chrono::milliseconds(50));
    while (!timer.expired() && io_.accesses.size() < 1000) must(vcpu_->run(io_));
    vcpu_->set_immediate_exit(false);
    return std::exchange(io_.accesses, {}).size();
  }

  Fd trigger_ = must(make_eventfd());
  Fd resample_ = must(make_eventfd());
};

TEST_F(KvmInterruptTest, AnEdgeIrqfdReachesTheGuestThroughTheIoapic) {
  must(vm_->register_irqfd(kPin, trigger_, nullptr));
  start(kEdgeVector);
  EXPECT_EQ(interrupts_in_a_while(), 0u);
  for (int i = 0; i < 3; ++i) {
    signal_eventfd(trigger_);
    EXPECT_EQ(next_interrupt(), kEdgeVector);
  }
  must(vm_->unregister_irqfd(kPin, trigger_));
  signal_eventfd(trigger_);
  EXPECT_EQ(interrupts_in_a_while(), 0u);
}

TEST_F(KvmInterruptTest, AnIrqfdSignalledBeforeTheGuestRunsIsKept) {
  must(vm_->set_irq_routes(std::vector<IrqRoute>{{.gsi = kMsiGsi, .target = kMsi}}));
  must(vm_->register_irqfd(kMsiGsi, trigger_, nullptr));
  start(kEdgeVector);
  signal_eventfd(trigger_);  // while the vCPU is outside the guest
  EXPECT_EQ(next_interrupt(), kEdgeVector);
}

TEST_F(KvmInterruptTest, TheGuestsEoiSignalsTheResampleFd) {
  must(vm_->register_irqfd(kPin, trigger_, &resample_));
  start(kLevelVector | kLevelTriggered);
  EXPECT_EQ(drain_eventfd(resample_), 0u);
  for (int i = 0; i < 2; ++i) {
    signal_eventfd(trigger_);
    EXPECT_EQ(next_interrupt(), kLevelVector);
    EXPECT_EQ(drain_eventfd(resample_), 1u);
    EXPECT_EQ(interrupts_in_a_while(), 0u);  // the EOI has lowered the line
  }
}

TEST_F(KvmInterruptTest, AHeldLineInterruptsUntilItIsLowered) {
  start(kLevelVector | kLevelTriggered);
  must(vm_->set_irq_line(kPin, true));
  EXPECT_EQ(next_interrupt(), kLevelVector);
  EXPECT_EQ(next_interrupt(), kLevelVector);
  must(vm_->set_irq_line(kPin, false));
  EXPECT_LE(interrupts_in_a_while(), 1u);  // one may have been on its way
  EXPECT_EQ(interrupts_in_a_while(), 0u);
}

TEST_F(KvmInterruptTest, AnMsiRouteTurnsAnIrqfdIntoAMessage) {
  auto routes = x86_64::default_irq_routes();
  routes.push_back({.gsi = kMsiGsi, .target = kMsi});
  must(vm_->set_irq_routes(routes));
  must(vm_->register_irqfd(kMsiGsi, trigger_, nullptr));
  must(vm_->register_irqfd(kPin, resample_, nullptr));
  start(kLevelVector);
  signal_eventfd(trigger_);
  EXPECT_EQ(next_interrupt(), kEdgeVector);
  signal_eventfd(resample_);  // the default table still leads to the IOAPIC
  EXPECT_EQ(next_interrupt(), kLevelVector);

  routes.back().target = MsiMessage{.address = kMsi.address, .data = kLevelVector};
  must(vm_->set_irq_routes(routes));
  signal_eventfd(trigger_);
  EXPECT_EQ(next_interrupt(), kLevelVector);
}

TEST_F(KvmInterruptTest, SignalMsiNeedsNoRoute) {
  start(kLevelVector);
  must(vm_->signal_msi(kMsi));
  EXPECT_EQ(next_interrupt(), kEdgeVector);
}

TEST_F(KvmInterruptTest, AnMsiToNobodyIsLost) {
  start(kLevelVector);
  must(vm_->signal_msi({.address = 0xfee00000 | 5 << 12, .data = kEdgeVector}));
  EXPECT_EQ(interrupts_in_a_while(), 0u);
}

TEST_F(KvmInterruptTest, RefusesARouteToAPinThatDoesNotExist) {
  const auto refused = vm_->set_irq_routes(std::vector<IrqRoute>{
      {.gsi = 0, .target = IrqChipPin{.chip = x86_64::kIoapic, .pin = x86_64::kIoapicPins}}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), std::errc::invalid_argument);
}

TEST_F(KvmInterruptTest, RefusesTheSameIrqfdTwice) {
  must(vm_->register_irqfd(kPin, trigger_, nullptr));
  const auto again = vm_->register_irqfd(kPin, trigger_, nullptr);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), std::errc::device_or_resource_busy);
  EXPECT_THAT(again.error().what(), HasSubstr("GSI 11"));
}

TEST_F(KvmInterruptTest, TheLapicStateRoundTrips) {
  constexpr size_t kSpurious = 0xf0 / 4;
  auto state = must(vcpu_->lapic());
  state.words[kSpurious] = 0x1ff;
  must(vcpu_->set_lapic(state));
  EXPECT_EQ(must(vcpu_->lapic()).words[kSpurious], 0x1ffu);
}

TEST_F(KvmInterruptTest, AKickReachesAVcpuThatWaitsToBeStarted) {
  const auto second = must(vm_->create_vcpu(1));
  const ScopedVcpuKick kick(*second);
  const KickTimer timer(std::chrono::milliseconds(20));
  EXPECT_EQ(must(second->run(io_)).kind, VcpuExit::Kind::kInterrupted);
  EXPECT_TRUE(timer.expired());
}

}  // namespace
}  // namespace crosvm::test
