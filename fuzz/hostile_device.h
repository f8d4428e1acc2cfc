#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "fuzz_input.h"
#include "virtio/rig/hostile_chains.h"
#include "virtio/rig/rig.h"

namespace crosvm {

/// Plays a hostile driver to a device: each step is a queue, what to do with it, and the bytes that
/// the device reads in it. `external` runs between the steps, for what the host's side does.
template <class External>
void play_hostile_device(Rig rig, std::span<const uint8_t> bytes, External external) {
  FuzzInput input(bytes);
  const auto queues = static_cast<uint16_t>(rig.info().queue_sizes.size());
  uint64_t seed = 0;
  while (!input.empty()) {
    RigDriver& driver = rig.driver(input.byte() % queues);
    const uint8_t what = input.byte();
    {
      HostileChains chains(driver, ++seed,
                           [&](std::span<std::byte> readable, auto&) { input.fill(readable); });
      const auto fault = static_cast<ChainFault>(what % (static_cast<int>(kLastChainFault) + 1));
      // Malformed chains end the ring's life, so most are well-formed.
      const ChainFault chosen = what < 64 && chains.can(fault) ? fault : ChainFault::kNone;
      chains.offer(chosen);
      driver.kick_anyway();
      rig.settle();
      if (is_malformed(chosen)) rig.reset();
    }
    external(input);
    while (driver.ring().take_used()) {
    }
    if (what > 240) rig.write_config(input.byte() % 16, std::array{std::byte{input.byte()}});
    if (what > 230 || rig.needs_reset() || seed % 64 == 0) rig.reset();
  }
  rig.settle();
}

}  // namespace crosvm
