#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "devices/net/net_abi.h"

namespace crosvm {

/// A tap as TapPort and vhost-net take it: one descriptor for each queue pair, non-blocking, with
/// packets that have a NetHeader. A tap that was made for it is gone when the last is closed.
struct Tap {
  std::string name;
  std::vector<Fd> queues;
  uint16_t mtu = 0;  ///< bytes; 0: it cannot be known, as of a tap of another network namespace
};

using Ipv4Address = std::array<uint8_t, 4>;

/// What a new tap gets, on the host's side.
struct TapAddress {
  Ipv4Address ip{};
  Ipv4Address netmask{};
  MacAddress mac{};
};

// All errors name the tap, the cause, and what helps.

/// Takes `pairs` queues of the tap of that name, which is made and brought up if there is none.
Result<Tap> attach_tap(const std::string& name, uint16_t pairs);

/// Takes an open queue of a tap, the descriptor `number` that we were started with, and `pairs` - 1
/// more of the same tap. Errors: also what its tap lacks.
Result<Tap> adopt_tap(int number, uint16_t pairs);

/// Makes a tap, called vmtapN, with these addresses, and brings it up.
Result<Tap> make_tap(const TapAddress& address, uint16_t pairs);

}  // namespace crosvm
