// The driver's side of virtio's PCI transport: each input is a list of register accesses, PCI
// configuration accesses and events of the backend, four bytes of header (kind, offset, size) and
// then what is written. Afterwards a well-behaved driver must get the device to run.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/log.h"
#include "virtio/virtio_pci_rig.h"

namespace crosvm {
namespace {

using test::VirtioPciRig;

enum class Kind { kRead, kWrite, kConfigRead, kConfigWrite, kMoveBar, kBackend, kCount };
constexpr size_t kHeader = 4;

void backend_event(VirtioPciRig& rig, uint8_t which, std::span<const std::byte> data) {
  switch (which % 6) {
    case 0:
      return rig.backend().listener().needs_reset();
    case 1:
      return rig.backend().listener().config_changed({data.begin(), data.end()});
    case 2:
      return rig.backend().hold(true);
    case 3:
      rig.backend().complete();
      return;
    case 4:
      return rig.start_driver();
    default:
      return rig.vm().fail_with(data.empty() ? 0 : ENOSPC);
  }
}

void config_access(VirtioPciRig& rig, bool write, uint16_t at, std::span<const std::byte> data) {
  const size_t index = at / 4 % 64;
  VirtioPci& device = *rig.device();
  if (!write) {
    device.config_reading(index);
    return;
  }
  device.config().write(index, at % 4, data);
  device.config_written(index);
}

void move_bar(VirtioPciRig& rig, uint16_t where) {
  std::optional<uint64_t> address;
  if (where % 4 != 0) address = 0xd0000000 + 0x8000ULL * where;
  rig.device()->bar_mapped(0, address);
}

/// Half of all inputs mean the common configuration.
uint16_t offset_of(uint16_t input) { return (input & 0x8000) != 0 ? input % 64 : input & 0x7fff; }

void play(VirtioPciRig& rig, std::span<const uint8_t> input) {
  while (input.size() >= kHeader) {
    const auto kind = static_cast<Kind>(input[0] % static_cast<uint8_t>(Kind::kCount));
    const uint16_t at = offset_of(static_cast<uint16_t>(input[1] | input[2] << 8));
    std::array<std::byte, 8> data{};
    const auto bytes = std::span(data).first(input[3] % 9);
    input = input.subspan(kHeader);
    if (kind != Kind::kRead && kind != Kind::kConfigRead) {
      const size_t given = std::min(bytes.size(), input.size());
      std::ranges::copy(std::as_bytes(input.first(given)), bytes.begin());
      input = input.subspan(given);
    }
    switch (kind) {
      case Kind::kRead:
        rig.device()->read_bar(0, at, bytes);
        break;
      case Kind::kWrite:
        rig.device()->write_bar(0, at, bytes);
        break;
      case Kind::kConfigRead:
      case Kind::kConfigWrite:
        config_access(rig, kind == Kind::kConfigWrite, at, bytes);
        break;
      case Kind::kMoveBar:
        move_bar(rig, at);
        break;
      default:
        backend_event(rig, static_cast<uint8_t>(at), bytes);
    }
  }
}

void expect_a_good_driver_succeeds(VirtioPciRig& rig) {
  rig.backend().hold(false);
  rig.backend().complete();
  rig.vm().fail_with(0);
  rig.set_status(0);
  CHECK(rig.status() == 0);
  rig.start_driver();
  CHECK(rig.status() == test::kRunning);
  for (uint16_t queue : {0, 1}) {
    CHECK(rig.backend().queue(queue).enabled);
    drain_eventfd(rig.backend().queue(queue).kick);
    rig.write<uint16_t>(0x3000 + 4ULL * queue, queue);
    CHECK(drain_eventfd(rig.backend().queue(queue).kick) == 1);
  }
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  return crosvm::log::configure({.filter = "off", .use_syslog = false, .syslog_tag = {}}) ? 0 : 1;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  crosvm::test::VirtioPciRig rig;
  crosvm::play(rig, std::span(data, size));
  crosvm::expect_a_good_driver_succeeds(rig);
  return 0;
}
