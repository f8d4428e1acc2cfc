#include "virtio/rig/hostile_chains.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "base/format.h"
#include "virtio/rig/echo_device.h"

namespace crosvm {
namespace {

std::vector<std::byte> bytes_of(const RigMemory& memory, const HostileChain& chain, bool writable) {
  std::vector<std::byte> bytes;
  for (const DriverBuffer& buffer : chain.buffers) {
    if (buffer.writable != writable || buffer.length == 0) continue;
    std::vector<std::byte> part(buffer.length);
    for (size_t i = 0; i < part.size(); ++i) {  // one by one, as regions may end inside
      memory.read(buffer.address + i, std::span(part).subspan(i, 1));
    }
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  return bytes;
}

/// What an echo must look like.
std::string judge_echo(const RigMemory& memory, const HostileChain& chain,
                       const DriverRing::Used& used) {
  const auto sent = bytes_of(memory, chain, false);
  const auto got = bytes_of(memory, chain, true);
  const size_t expected = std::min(sent.size(), got.size());
  if (used.written != expected) {
    return format_text("has {} bytes written instead of {}", used.written, expected);
  }
  return std::equal(got.begin(), got.begin() + static_cast<ptrdiff_t>(expected), sent.begin())
             ? ""
             : "has other bytes than were sent";
}

class EveryRing : public testing::TestWithParam<std::tuple<RigPlace, bool, bool, bool>> {
 protected:
  static RigOptions options() {
    const auto [place, packed, indirect, event_idx] = GetParam();
    return {.place = place, .packed = packed, .event_idx = event_idx, .indirect = indirect};
  }
};

TEST_P(EveryRing, GivesWellFormedChainsBackOnceAndRefusesTheOthers) {
  auto rig = make_rig<EchoFactory>("size=64", options());
  const bool inlined = rig.options().place == RigPlace::kInline;
  const HostileResult result = play_hostile_chains(
      rig,
      {.chains = inlined ? 1250u : 250u,  // 5,000 per kind of ring, over its features
       .judge = [&](const HostileChain& chain,
                    const DriverRing::Used& used) { return judge_echo(rig.memory(), chain, used); },
       .may_refuse = false});
  EXPECT_EQ(result.failure, "");
  EXPECT_EQ(result.answered, result.well_formed);
  EXPECT_EQ(result.resets, result.malformed);
  EXPECT_GT(result.malformed, result.well_formed / 4);
  EXPECT_GT(result.well_formed, result.malformed / 4);
}

TEST_P(EveryRing, MeetsEveryFault) {
  auto rig = make_rig<EchoFactory>("size=16", options());
  const HostileChains probe(rig.driver(0), 0);
  for (size_t i = 0; i <= static_cast<size_t>(kLastChainFault); ++i) {
    const auto fault = static_cast<ChainFault>(i);
    if (!probe.can(fault)) continue;
    const HostileResult result = play_hostile_chains(
        rig, {.queue = 1, .chains = 40, .seed = i, .may_refuse = false, .only = fault});
    EXPECT_EQ(result.failure, "") << name_of(fault);
    EXPECT_EQ(is_malformed(fault) ? result.resets : result.answered, 40u) << name_of(fault);
  }
}

TEST_P(EveryRing, LeavesTheOtherQueueAlone) {
  auto rig = make_rig<EchoFactory>("", options());
  const RigToken token = rig.driver(1).send({readable("before"), writable(6)});
  ASSERT_EQ(rig.driver(1).wait_used(token).bytes, readable("before").bytes);
  HostileChains chains(rig.driver(0), 7);
  chains.offer(ChainFault::kInHole);
  rig.driver(0).kick_anyway();
  ASSERT_TRUE(rig.wait_needs_reset());
  rig.driver(1).send({readable("after"), writable(5)});
  const auto deadline = RigWaiter::Clock::now() + RigDriver::kPatience;
  while (!rig.driver(1).try_used() && RigWaiter::Clock::now() < deadline) {
    rig.driver(1).ring().ask_for_interrupt();
    rig.driver(1).waiter().wait(rig.driver(1).call_descriptor(),
                                RigWaiter::Clock::now() + std::chrono::milliseconds(10));
    rig.driver(1).take_interrupts();  // else the next wait does not wait
  }
  EXPECT_EQ(rig.driver(1).outstanding(), 0u);
  EXPECT_EQ(rig.needs_reset_count(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Rings, EveryRing,
                         testing::Combine(testing::Values(RigPlace::kInline, RigPlace::kThread),
                                          testing::Bool(), testing::Bool(), testing::Bool()));

}  // namespace
}  // namespace crosvm
