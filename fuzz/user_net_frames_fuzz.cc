// Frames of a hostile guest into the user network, with libslirp behind it. Sockets lead nowhere:
// the process is in an empty network of its own.

#include <sched.h>
#include <sys/epoll.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "base/log.h"
#include "devices/net/user/glib_messages.h"
#include "devices/net/user/own_frames.h"
#include "devices/net/user/user_net_port.h"

namespace crosvm {
namespace {

constexpr size_t kMostFrames = 64;

/// The frame with lengths and checksums made right, so that more than the first test is met.
void mend(std::vector<uint8_t>& frame) {
  if (frame.size() < kEthernetHeaderBytes + 40) return;
  uint8_t* packet = &frame[kEthernetHeaderBytes];
  const size_t length = frame.size() - kEthernetHeaderBytes;
  const bool v6 = packet[0] >> 4 == 6;
  const size_t header = v6 ? 40 : 20;
  if (length < header + 8) return;
  const uint8_t protocol = v6 ? packet[6] : packet[9];
  store_be16(&frame[12], v6 ? kEtherTypeIpv6 : kEtherTypeIpv4);
  frame[6] &= 0xfe;
  const auto payload = std::span(frame).subspan(kEthernetHeaderBytes + header);
  uint32_t sum = 0;
  if (v6) {
    store_be16(packet + 4, static_cast<uint16_t>(payload.size()));
    sum = add_to_checksum({packet + 8, 32});
  } else {
    packet[0] = 0x45;
    store_be16(packet + 2, static_cast<uint16_t>(length));
    store_be16(packet + 10, 0);
    store_be16(packet + 10, internet_checksum(add_to_checksum({packet, 20})));
    sum = add_to_checksum({packet + 12, 8});
  }
  sum += static_cast<uint32_t>(payload.size()) + protocol;
  size_t at = 2;
  if (protocol == kProtocolTcp) at = 16;
  if (protocol == kProtocolUdp) {
    at = 6;
    store_be16(&payload[4], static_cast<uint16_t>(payload.size()));
  }
  if (protocol == kProtocolIcmp) sum = 0;
  if (payload.size() < at + 2) return;
  store_be16(&payload[at], 0);
  store_be16(&payload[at], internet_checksum(add_to_checksum(payload, sum)));
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (::unshare(CLONE_NEWNET) != 0) (void)::unshare(CLONE_NEWUSER | CLONE_NEWNET);
  crosvm::take_glib_messages();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  static const auto memory = [] {
    const RamRange ram{GuestAddress(0), 1 << 20};
    return *GuestMemory::create(std::span(&ram, 1), {});
  }();
  static const UserNetConfig config = *UserNetConfig::parse(
      *KeyValues::parse("allow=[127.0.0.0/8,\"::1\"],forward=[tcp:8080-:80,udp:8080-:80]"));
  auto loop = *EventLoop::create();
  auto made = UserNetPort::create(*loop, config, {.tcp = 16, .udp = 16});
  if (!made) return 0;  // no such network here
  auto port = *std::move(made);
  const GuestSlice room = *memory.slice(GuestAddress(0), kNetHeaderBytes + kMostPacketBytes);
  port->begin({.receivable =
                   [&] {
                     while (port->receive(ChainBuffers({&room, 1}))) {
                     }
                   },
               .sendable = [] {},
               .link_changed = [](bool) {}});
  port->listen(true);
  // Each frame: flags, then its length in two bytes.
  for (size_t frames = 0; size >= 3 && frames < kMostFrames; ++frames) {
    const uint8_t flags = data[0];
    const size_t length = std::min<size_t>(load_be16(data + 1) % 2000, size - 3);
    std::vector<uint8_t> frame(data + 3, data + 3 + length);
    data += 3 + length;
    size -= 3 + length;
    if ((flags & 1) == 0) mend(frame);
    const GuestSlice slice = *memory.slice(GuestAddress(0x80000), frame.size());
    if (slice.write_bytes(0, std::as_bytes(std::span(frame)))) {
      (void)port->send({}, ChainBuffers({&slice, 1}));
    }
    if ((flags & 2) != 0) (void)loop->run_once(std::chrono::milliseconds(0));
  }
  for (int i = 0; i < 4; ++i) (void)loop->run_once(std::chrono::milliseconds(0));
  return 0;
}
