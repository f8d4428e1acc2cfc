#include "hypervisor/kvm/test_rig.h"

namespace crosvm::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Space = IoEvent::Space;

/// The doorbells payload rings byte 1, byte 2 and word 2 at a port, then in memory.
class KvmIoEventTest : public KvmTest, public testing::WithParamInterface<Space> {
 protected:
  IoEvent at_doorbell(uint32_t length, std::optional<uint64_t> datamatch = std::nullopt) const {
    const bool is_port = GetParam() == Space::kPort;
    return {.space = GetParam(),
            .address = is_port ? uint64_t{TEST_PORT} : uint64_t{TEST_MMIO},
            .length = length,
            .datamatch = datamatch};
  }
  /// Runs the payload; returns the accesses of our kind that came to us.
  std::vector<Access> ring() {
    io_.accesses.clear();
    io_.done = false;
    x86_64::Registers registers;
    registers.rdi = TEST_MMIO;
    load(doorbells_payload(), registers);
    run_to_done();
    const auto other =
        GetParam() == Space::kPort ? Access::Kind::kMmioWrite : Access::Kind::kPortWrite;
    std::erase_if(io_.accesses, [&](const Access& access) { return access.kind == other; });
    return io_.accesses;
  }
  Access exit(size_t length, uint64_t value) const {
    const bool is_port = GetParam() == Space::kPort;
    return {is_port ? Access::Kind::kPortWrite : Access::Kind::kMmioWrite, at_doorbell(0).address,
            length, value};
  }

  Fd event_ = must(make_eventfd());
};

TEST_P(KvmIoEventTest, AnyLengthTakesAll) {
  must(vm_->register_ioevent(at_doorbell(0), event_));
  EXPECT_THAT(ring(), IsEmpty());
  EXPECT_EQ(drain_eventfd(event_), 3u);
}

TEST_P(KvmIoEventTest, ALengthTakesAllValuesOfThatLength) {
  must(vm_->register_ioevent(at_doorbell(1), event_));
  EXPECT_THAT(ring(), ElementsAre(exit(2, 2)));
  EXPECT_EQ(drain_eventfd(event_), 2u);
}

TEST_P(KvmIoEventTest, ADatamatchTakesThatValueOnly) {
  must(vm_->register_ioevent(at_doorbell(1, 2), event_));
  EXPECT_THAT(ring(), ElementsAre(exit(1, 1), exit(2, 2)));
  EXPECT_EQ(drain_eventfd(event_), 1u);
}

TEST_P(KvmIoEventTest, EveryValueMayHaveAnEventOfItsOwn) {
  const Fd second = must(make_eventfd());
  must(vm_->register_ioevent(at_doorbell(2, 2), event_));
  must(vm_->register_ioevent(at_doorbell(1, 2), second));
  EXPECT_THAT(ring(), ElementsAre(exit(1, 1)));
  EXPECT_EQ(drain_eventfd(event_), 1u);
  EXPECT_EQ(drain_eventfd(second), 1u);
}

TEST_P(KvmIoEventTest, ExitsAgainAfterItIsRemoved) {
  must(vm_->register_ioevent(at_doorbell(1, 1), event_));
  EXPECT_FALSE(vm_->unregister_ioevent(at_doorbell(1, 2), event_));
  must(vm_->unregister_ioevent(at_doorbell(1, 1), event_));
  EXPECT_THAT(ring(), ElementsAre(exit(1, 1), exit(1, 2), exit(2, 2)));
  EXPECT_EQ(drain_eventfd(event_), 0u);
}

TEST_P(KvmIoEventTest, RefusesASecondEventForTheSameWrite) {
  must(vm_->register_ioevent(at_doorbell(1, 1), event_));
  const Fd second = must(make_eventfd());
  const auto refused = vm_->register_ioevent(at_doorbell(1, 1), second);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), std::errc::file_exists);
}

INSTANTIATE_TEST_SUITE_P(Space, KvmIoEventTest, testing::Values(Space::kPort, Space::kMmio),
                         [](const auto& info) {
                           return info.param == Space::kPort ? "Port" : "Mmio";
                         });

}  // namespace
}  // namespace crosvm::test
