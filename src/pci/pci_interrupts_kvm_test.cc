#include <atomic>
#include <thread>

#include "hypervisor/kvm/test_rig.h"
#include "pci/pci_interrupts.h"

extern "C" {
extern const std::byte payload_interrupts_edge_41[];
extern const std::byte payload_interrupts_level_42[];
}

namespace crosvm::test {
namespace {

constexpr uint8_t kMsiVector = 0x41;
constexpr uint8_t kLineVector = 0x42;
constexpr uint32_t kLevelTriggered = 1 << 15;
constexpr uint32_t kPin = 11;  // of the IOAPIC, and its GSI

/// A function with one event, and a guest that takes its interrupts.
class PciInterruptsKvmTest : public KvmTest {
 protected:
  PciInterruptsKvmTest() : KvmTest(Irqchip::kKernel) {}

  void SetUp() override {
    KvmTest::SetUp();
    if (IsSkipped()) return;
    routes_.emplace(*vm_, x86_64::default_irq_routes(), x86_64::kIoapicPins);
    relay_ = must(InterruptRelay::create());
    interrupts_ = must(PciInterrupts::create({.vm = *vm_, .routes = *routes_, .relay = *relay_},
                                             {.vectors = 1, .causes = {1}, .intx_gsi = kPin}));
    start();
  }
  void TearDown() override {
    interrupts_.reset();
    relay_.reset();
  }

  /// Runs the guest until it takes interrupts.
  void start() {
    x86_64::Registers registers;
    registers.rdi = kPin;
    registers.rsi = kLineVector | kLevelTriggered;
    load(interrupts_payload(), registers);
    const auto gate = [this](uint8_t vector, const std::byte* handler) {
      const auto offset = static_cast<uint64_t>(handler - payload_interrupts_start);
      must(x86_64::set_interrupt_gate(memory_, vector, x86_64::kBareCode + offset));
    };
    gate(kMsiVector, payload_interrupts_edge_41);
    gate(kLineVector, payload_interrupts_level_42);
    run([this] { return !io_.accesses.empty(); });
    io_.accesses.clear();
  }
  /// Runs the guest until its next interrupt handler is through; returns the vector, 0 for none.
  uint64_t next_interrupt() {
    run([this] { return !io_.accesses.empty(); });
    return io_.accesses.empty() ? 0 : std::exchange(io_.accesses, {})[0].value;
  }
  /// Lets the guest run for a while; returns how many interrupts it took.
  size_t interrupts_in_a_while() {
    const ScopedVcpuKick kick(*vcpu_);
    const KickTimer timer(std::chrono::milliseconds(50));
    while (!timer.expired() && io_.accesses.size() < 1000) must(vcpu_->run(io_));
    vcpu_->set_immediate_exit(false);
    return std::exchange(io_.accesses, {}).size();
  }

  template <class T>
  void write_table(uint64_t offset, T value) {
    interrupts_->write_table(offset, std::as_bytes(std::span(&value, 1)));
  }
  void mask(bool masked) { write_table<uint32_t>(12, masked ? 1 : 0); }
  void use_msix() {
    interrupts_->set_control(true, false);
    interrupts_->set_vector(0, 0);
    write_table<uint64_t>(0, 0xfee00000);
    write_table<uint32_t>(8, kMsiVector);
    mask(false);
  }
  void signal() { signal_eventfd(interrupts_->event(0)); }

  std::optional<MsiRoutes> routes_;
  std::unique_ptr<InterruptRelay> relay_;
  std::unique_ptr<PciInterrupts> interrupts_;
};

TEST_F(PciInterruptsKvmTest, TheLineInterruptsAgainUntilTheCausesAreRead) {
  signal();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(next_interrupt(), kLineVector);
  EXPECT_EQ(interrupts_->take_causes(), 1);
  EXPECT_LE(interrupts_in_a_while(), 1U);  // one may have been on its way
  EXPECT_EQ(interrupts_in_a_while(), 0U);
  signal();
  EXPECT_EQ(next_interrupt(), kLineVector);
}

TEST_F(PciInterruptsKvmTest, AMaskedVectorInterruptsWhenItIsUnmasked) {
  use_msix();
  signal();
  EXPECT_EQ(next_interrupt(), kMsiVector);
  mask(true);
  signal();
  EXPECT_EQ(interrupts_in_a_while(), 0U);
  mask(false);
  EXPECT_EQ(next_interrupt(), kMsiVector);
  EXPECT_EQ(interrupts_in_a_while(), 0U);
}

TEST_F(PciInterruptsKvmTest, NoSignalIsLostWhileTheVectorIsMaskedAndUnmasked) {
  use_msix();
  std::atomic<bool> done = false;
  std::thread driver([&] {
    for (int i = 0; !done; ++i) mask(i % 2 == 0);
    mask(false);
  });
  for (int i = 0; i < 200 && !HasFailure(); ++i) {
    signal();
    EXPECT_EQ(next_interrupt(), kMsiVector) << i;
  }
  done = true;
  driver.join();
}

}  // namespace
}  // namespace crosvm::test
