#include <sys/mman.h>

#include "hypervisor/kvm/test_rig.h"

namespace crosvm::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Kind = Access::Kind;

constexpr uint64_t kPage = 4096;

class KvmMemoryTest : public KvmTest {
 protected:
  void SetUp() override {
    KvmTest::SetUp();
    if (IsSkipped()) return;
    host_ = ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(host_, MAP_FAILED);
  }
  void TearDown() override {
    vcpu_.reset();
    vm_.reset();
    if (host_ != nullptr) ::munmap(host_, 2 * kPage);
  }
  /// The guest says the word at TEST_MMIO and stores `value` there.
  void exchange(uint32_t value) {
    io_.accesses.clear();
    io_.done = false;
    x86_64::Registers registers;
    registers.rdi = TEST_MMIO;
    registers.rsi = value;
    load(exchange_payload(), registers);
    run_to_done();
  }
  uint32_t host_word() const { return *static_cast<const volatile uint32_t*>(host_); }
  void set_host_word(uint32_t value) { *static_cast<volatile uint32_t*>(host_) = value; }

  void* host_ = nullptr;
};

TEST_F(KvmMemoryTest, ASlotIsRamForTheGuestUntilItIsRemoved) {
  set_host_word(0x1234);
  const Memslot slot = must(vm_->map({TEST_MMIO}, host_, kPage, /*read_only=*/false));
  exchange(0x5678);
  EXPECT_THAT(io_.accesses, ElementsAre(Access{Kind::kPortWrite, TEST_PORT, 4, 0x1234}));
  EXPECT_EQ(host_word(), 0x5678u);

  must(vm_->unmap(slot));
  io_.answers = {0x9abc};
  exchange(0xdef0);
  EXPECT_THAT(io_.accesses, ElementsAre(Access{Kind::kMmioRead, TEST_MMIO, 4, 0x9abc},
                                        Access{Kind::kPortWrite, TEST_PORT, 4, 0x9abc},
                                        Access{Kind::kMmioWrite, TEST_MMIO, 4, 0xdef0}));
  EXPECT_EQ(host_word(), 0x5678u);
}

TEST_F(KvmMemoryTest, AWriteToAReadOnlySlotIsMmio) {
  set_host_word(0x1234);
  must(vm_->map({TEST_MMIO}, host_, kPage, /*read_only=*/true));
  exchange(0x5678);
  EXPECT_THAT(io_.accesses, ElementsAre(Access{Kind::kPortWrite, TEST_PORT, 4, 0x1234},
                                        Access{Kind::kMmioWrite, TEST_MMIO, 4, 0x5678}));
  EXPECT_EQ(host_word(), 0x1234u);
}

TEST_F(KvmMemoryTest, RamTakesTheFirstSlotsAndTheLowestFreeOneFollows) {
  const auto map_page = [this](uint64_t page) {
    return must(vm_->map({TEST_MMIO + page * kPage}, host_, kPage, /*read_only=*/false));
  };
  EXPECT_EQ(map_page(0), 1u);  // slot 0 is RAM
  EXPECT_EQ(map_page(1), 2u);
  EXPECT_EQ(map_page(2), 3u);
  must(vm_->unmap(2));
  must(vm_->unmap(1));
  EXPECT_EQ(map_page(3), 1u);
  EXPECT_EQ(map_page(4), 2u);
  EXPECT_EQ(map_page(5), 4u);
}

TEST_F(KvmMemoryTest, RefusesOverlapsAndUnknownSlots) {
  must(vm_->map({TEST_MMIO}, host_, 2 * kPage, /*read_only=*/false));
  for (const uint64_t base : {uint64_t{TEST_MMIO} + kPage, uint64_t{0}}) {
    const auto slot = vm_->map({base}, host_, kPage, /*read_only=*/false);
    ASSERT_FALSE(slot) << base;
    EXPECT_EQ(slot.error().code(), std::errc::file_exists);
  }
  const auto misaligned = vm_->map({TEST_MMIO + 3 * kPage + 1}, host_, kPage, /*read_only=*/false);
  ASSERT_FALSE(misaligned);
  EXPECT_EQ(misaligned.error().code(), std::errc::invalid_argument);
  EXPECT_THAT(misaligned.error().what(), HasSubstr("0x80003001"));
  EXPECT_FALSE(vm_->map({TEST_MMIO + 3 * kPage}, host_, 0, /*read_only=*/false));
  EXPECT_FALSE(vm_->unmap(2));
  EXPECT_EQ(must(vm_->map({TEST_MMIO + 3 * kPage}, host_, kPage, /*read_only=*/false)), 2u);
  must(vm_->unmap(2));
  EXPECT_FALSE(vm_->unmap(2));
}

}  // namespace
}  // namespace crosvm::test
