// Port accesses of a hostile guest on the platform devices: each input is a list of accesses, four
// bytes of header (device, offset, size and direction, times) and then what is written.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/event_loop.h"
#include "platform/bus.h"
#include "platform/cmos.h"
#include "platform/debugcon.h"
#include "platform/i8042.h"
#include "platform/pm.h"
#include "platform/serial.h"

namespace crosvm {
namespace {

constexpr uint64_t kPmBase = 0xc000;
constexpr std::array<uint64_t, 5> kBases{Serial::kPorts[0], Cmos::kBase, kPmBase, I8042::kBase,
                                         0x402};

struct Machine {
  Machine() {
    add(kBases[0], Serial::kLength, std::make_shared<Serial>(*make_eventfd(), make_sink_output()));
    add(kBases[1], Cmos::kLength,
        *Cmos::create(
            *loop, {.below_4g = 1 << 30}, *make_eventfd(),
            [this](Fd clear) { pm->rtc_wake(std::move(clear)); }, [this] { return now; }));
    pm = *Pm::create(*loop, *make_eventfd(), *make_eventfd(), {});
    add(kBases[2], Pm::kLength, pm);
    add(kBases[3], I8042::kLength, std::make_shared<I8042>([] {}));
    add(kBases[4], Debugcon::kLength, std::make_shared<Debugcon>(make_sink_output()));
  }

  void add(uint64_t base, uint64_t length, std::shared_ptr<BusDevice> device) {
    CHECK(bus.insert(base, length, std::move(device)));
  }

  timespec now{.tv_sec = 1700000000, .tv_nsec = 0};
  std::unique_ptr<EventLoop> loop = *EventLoop::create();
  Bus bus{"io"};
  std::shared_ptr<Pm> pm;
};

void play(Machine& machine, std::span<const uint8_t> input) {
  std::array<std::byte, 8> data;
  while (input.size() >= 4) {
    const uint64_t address = kBases[input[0] % kBases.size()] + input[1] % 80;
    const size_t size = input[2] % 9;
    const bool is_write = (input[2] & 0x80) != 0;
    machine.now.tv_sec += input[3] * input[3];
    input = input.subspan(4);
    data.fill(std::byte{0});
    if (!is_write) {
      machine.bus.read(address, std::span(data).first(size));
      continue;
    }
    const size_t given = std::min(size, input.size());
    for (size_t i = 0; i < given; ++i) data[i] = std::byte{input[i]};
    input = input.subspan(given);
    machine.bus.write(address, std::span(data).first(size));
  }
  CHECK(machine.loop->run_once(std::chrono::milliseconds(0)));
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  crosvm::Machine machine;
  crosvm::play(machine, std::span(data, size));
  return 0;
}
