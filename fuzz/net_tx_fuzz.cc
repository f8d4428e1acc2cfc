// A hostile driver of a network card, at all its queues, while packets come for it. The first two
// bytes choose the card and the offloads that are refused.

#include "net_card.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  if (size < 2) return 0;
  const uint64_t refused = (kNetHostOffloads | kNetGuestOffloads) & (uint64_t{data[1]} * 0x0101'01);
  FuzzNetwork network;
  play_hostile_device(make_fuzz_card(network, data[0], refused), {data + 2, size - 2},
                      [&](FuzzInput& input) { network.act(input); });
  return 0;
}
