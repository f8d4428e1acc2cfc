// Commands of a network card's driver: each a length, cut in two at a place, and what is in it.

#include <vector>

#include "net_card.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  constexpr uint16_t kControl = 2;
  if (size == 0) return 0;
  FuzzNetwork network;
  Rig rig = make_fuzz_card(network, data[0], 0);
  FuzzInput input({data + 1, size - 1});
  while (!input.empty()) {
    std::vector<std::byte> command(input.byte() * (input.byte() % 8 == 0 ? 8 : 1));
    const size_t cut = command.empty() ? 0 : input.byte() % command.size();
    input.fill(command);
    if (!command.empty()) command[0] &= std::byte{7};  // of a class that there is, or nearly
    const std::span<const std::byte> bytes(command);
    rig.driver(kControl).send(
        {readable(bytes.first(cut)), readable(bytes.subspan(cut)), writable(1)});
    const RigUsed used = rig.driver(kControl).wait_used();
    CHECK(used.arrived && used.written == 1 && (used.last_byte() == 0 || used.last_byte() == 1));
    network.act(input);
    rig.settle();
    if (input.byte() == 255) rig.reset();
  }
  return 0;
}
