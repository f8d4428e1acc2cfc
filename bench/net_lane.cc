#include "bench/net_lane.h"

#include <algorithm>
#include <utility>

#include "devices/net/net_abi.h"

namespace crosvm {
namespace {

constexpr uint16_t kNone = UINT16_MAX;
constexpr size_t kEthernet = 14;

void put16(std::vector<std::byte>& frame, size_t at, size_t value) {
  frame[at] = static_cast<std::byte>(value >> 8);
  frame[at + 1] = static_cast<std::byte>(value);
}

}  // namespace

std::vector<std::byte> net_frame(size_t bytes, uint16_t flow) {
  constexpr size_t kIp = kEthernet;
  constexpr size_t kUdp = kIp + 20;
  std::vector<std::byte> frame(kUdp + 8);
  frame[0] = frame[6] = std::byte{2};  // locally administered, of one card
  frame[5] = std::byte{0xee};
  frame[11] = std::byte{0xdd};
  put16(frame, 12, 0x0800);
  frame[kIp] = std::byte{0x45};
  put16(frame, kIp + 2, bytes - kEthernet);
  frame[kIp + 8] = std::byte{64};  // hops
  frame[kIp + 9] = std::byte{17};  // UDP
  put16(frame, kIp + 12, 0xc000);  // from 192.0.2.1 to 192.0.2.2
  put16(frame, kIp + 14, 0x0201);
  put16(frame, kIp + 16, 0xc000);
  put16(frame, kIp + 18, 0x0202);
  put16(frame, kUdp, 1024u + flow);
  put16(frame, kUdp + 2, 9);
  put16(frame, kUdp + 4, bytes - kUdp);
  frame.resize(bytes, std::byte{0x5a});
  return frame;
}

NetLane::NetLane(Rig& rig, uint16_t queue, uint16_t depth, uint32_t bytes, bool writable)
    : rig_(rig), driver_(rig.driver(queue)), buffer_of_(65536, kNone) {
  for (uint16_t i = 0; i < depth; ++i) {
    buffers_.push_back({rig.memory().allocate(bytes), bytes, writable});
    idle_.push_back(i);
  }
}

NetLane NetLane::transmit(Rig& rig, uint16_t queue, uint16_t depth,
                          std::span<const std::byte> frame) {
  const auto bytes = static_cast<uint32_t>(kNetHeaderBytes + frame.size());
  NetLane lane(rig, queue, depth, bytes, /*writable=*/false);
  for (const DriverBuffer& buffer : lane.buffers_) {
    rig.memory().fill(buffer.address, kNetHeaderBytes, std::byte{0});
    rig.memory().write(GuestAddress{buffer.address.value + kNetHeaderBytes}, frame);
  }
  return lane;
}

NetLane NetLane::receive(Rig& rig, uint16_t queue, uint16_t depth, uint32_t bytes) {
  const auto room = std::min<uint32_t>(bytes + kNetHeaderBytes, kMostInABuffer);
  return {rig, queue, depth, room, /*writable=*/true};
}

NetLane::~NetLane() {
  for (const DriverBuffer& buffer : buffers_) rig_.memory().free(buffer.address);
}

void NetLane::begin() {
  for (uint16_t index : std::exchange(idle_, {})) offer(index);
  show();
}

uint64_t NetLane::turn(bool more) {
  uint64_t frames = 0;
  bool offered = false;
  while (auto used = driver_.ring().take_used()) {
    const uint16_t index = std::exchange(buffer_of_[used->id], kNone);
    CHECK(index != kNone);
    --in_flight_;
    if (ends_frame(index)) ++frames;
    if (more) offer(index);
    if (!more) idle_.push_back(index);
    offered = more;
  }
  if (offered) show();
  return frames;
}

/// Whether this chain is the last of a frame; each of a transmitq is.
bool NetLane::ends_frame(uint16_t index) {
  const DriverBuffer& buffer = buffers_[index];
  if (!buffer.writable) return true;
  if (rest_of_frame_ == 0) {
    const GuestAddress at{buffer.address.value + offsetof(NetHeader, num_buffers)};
    rest_of_frame_ = rig_.memory().guest().read<uint16_t>(at).value_or(0);
    CHECK(rest_of_frame_ > 0);
  }
  return --rest_of_frame_ == 0;
}

void NetLane::offer(uint16_t index) {
  auto id = driver_.ring().add({&buffers_[index], 1}, std::nullopt);
  CHECK(id.has_value());
  buffer_of_[*id] = index;
  ++in_flight_;
}

void NetLane::show() {
  if (driver_.ring().publish()) driver_.kick_anyway();
}

}  // namespace crosvm
