#include "hypervisor/kvm/test_rig.h"
#include "hypervisor/msi_routes.h"

extern "C" {
extern const std::byte payload_interrupts_edge_41[];
extern const std::byte payload_interrupts_level_42[];
}

namespace crosvm::test {
namespace {

constexpr uint64_t kLapic = 0xfee00000;
constexpr uint8_t kVector = 0x41;
constexpr uint8_t kOtherVector = 0x42;
constexpr uint32_t kPin = 11;
constexpr uint32_t kFirstGsi = 24;

class KvmMsiRoutesTest : public KvmTest {
 protected:
  KvmMsiRoutesTest() : KvmTest(Irqchip::kKernel) {}

  /// Runs the guest until it takes interrupts; IOAPIC pin kPin raises kOtherVector.
  void start() {
    x86_64::Registers registers;
    registers.rdi = kPin;
    registers.rsi = kOtherVector;
    load(interrupts_payload(), registers);
    const auto gate = [this](uint8_t vector, const std::byte* handler) {
      const auto offset = static_cast<uint64_t>(handler - payload_interrupts_start);
      must(x86_64::set_interrupt_gate(memory_, vector, x86_64::kBareCode + offset));
    };
    gate(kVector, payload_interrupts_edge_41);
    gate(kOtherVector, payload_interrupts_level_42);
    run([this] { return !io_.accesses.empty(); });
    io_.accesses.clear();
  }
  /// Runs the guest until its next interrupt handler is through; returns the vector.
  uint64_t next_interrupt() {
    run([this] { return !io_.accesses.empty(); });
    return io_.accesses.empty() ? 0 : std::exchange(io_.accesses, {})[0].value;
  }
};

TEST_F(KvmMsiRoutesTest, TheGuestGetsTheMessageOfTheDay) {
  MsiRoutes routes(*vm_, x86_64::default_irq_routes(), kFirstGsi);
  const Fd trigger = must(make_eventfd());
  const Fd pin = must(make_eventfd());
  const uint32_t gsi = must(routes.allocate({.address = kLapic, .data = kVector}));
  must(vm_->register_irqfd(gsi, trigger, nullptr));
  must(vm_->register_irqfd(kPin, pin, nullptr));
  start();
  signal_eventfd(trigger);
  EXPECT_EQ(next_interrupt(), kVector);
  signal_eventfd(pin);
  EXPECT_EQ(next_interrupt(), kOtherVector) << "the pins are routed as before";

  must(routes.update(gsi, {.address = kLapic, .data = kOtherVector}));
  signal_eventfd(trigger);
  EXPECT_EQ(next_interrupt(), kOtherVector);
}

TEST_F(KvmMsiRoutesTest, TheKernelTakesARouteForEveryGsi) {
  MsiRoutes routes(*vm_, x86_64::default_irq_routes(), kFirstGsi);
  for (uint32_t gsi = kFirstGsi; gsi <= 1023; ++gsi) {
    ASSERT_EQ(must(routes.allocate({.address = kLapic, .data = kVector})), gsi);
  }
  EXPECT_FALSE(routes.allocate({.address = kLapic, .data = kVector}));
}

}  // namespace
}  // namespace crosvm::test
