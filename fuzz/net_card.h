#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/log.h"
#include "devices/net/net_device.h"
#include "hostile_device.h"

namespace crosvm {

/// What is on the other side of a card: takes what it sends, and has packets for it.
struct FuzzNetwork {
  std::deque<std::vector<std::byte>> packets;  // for the guest, with headers
  std::function<void()> arrived;
  uint8_t sends = 0;  // every so many times it has no room; 0: never

  void act(FuzzInput& input) {
    const uint8_t what = input.byte();
    if (what < 128 || packets.size() > 8) return;
    std::vector<std::byte> packet(what % 16 == 0 ? kNetHeaderBytes + kMostPacketBytes
                                                 : kNetHeaderBytes + what);
    input.fill(std::span(packet).first(std::min<size_t>(packet.size(), 40)));
    packet[1] &= std::byte{0x87};  // of the kinds of segments mostly one that there is
    packets.push_back(std::move(packet));
    if (arrived) arrived();
  }
};

/// Judges what reaches a port.
class FuzzPort : public NetPort {
 public:
  FuzzPort(EventLoop& loop, FuzzNetwork& network) : loop_(loop), network_(network) {}
  ~FuzzPort() override { network_.arrived = {}; }
  void begin(Events events) override {
    events_ = std::move(events);
    network_.arrived = [this] { wake(); };
  }
  uint64_t offloads() const override { return kNetGuestOffloads | kNetHostOffloads; }
  void set_guest_offloads(uint64_t features) override {
    CHECK((features & ~kNetGuestOffloads) == 0);
  }
  void listen(bool on) override {
    listening_ = on;
    wake();
  }
  std::optional<size_t> receive(const ChainBuffers& room) override {
    if (network_.packets.empty()) return std::nullopt;
    const std::vector<std::byte> packet = std::move(network_.packets.front());
    network_.packets.pop_front();
    const size_t bytes = std::min<size_t>(packet.size(), room.size());
    CHECK(bytes == packet.size());
    CHECK(room.write_bytes(0, packet).has_value());
    return bytes;
  }
  Sent send(const NetHeader& header, const ChainBuffers& packet) override {
    CHECK(packet.size() >= kEthernetHeaderBytes && packet.size() <= kMostPacketBytes);
    CHECK((header.flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0 && header.num_buffers == 0);
    CHECK(header.hdr_len <= packet.size());
    if (header.flags != 0) CHECK(header.csum_start + header.csum_offset + 2u <= packet.size());
    if (header.gso_type != 0) CHECK(header.gso_size != 0 && header.flags != 0);
    if (network_.sends != 0 && ++sent_ % network_.sends == 0) {
      loop_.post([sendable = events_.sendable, alive = std::weak_ptr(alive_)] {
        if (!alive.expired()) sendable();
      });
      return Sent::kLater;
    }
    return Sent::kDone;
  }

 private:
  void wake() {
    if (!listening_ || network_.packets.empty()) return;
    loop_.post([this, alive = std::weak_ptr(alive_)] {
      if (alive.expired() || !listening_ || network_.packets.empty()) return;
      events_.receivable();
      wake();
    });
  }

  EventLoop& loop_;
  FuzzNetwork& network_;
  Events events_;
  bool listening_ = false;
  unsigned sent_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class OpenedFuzzCard : public OpenedDevice {
 public:
  OpenedFuzzCard(NetConfig config, FuzzNetwork& network)
      : config_(std::move(config)), network_(network) {}
  size_t rings() const override { return 0; }
  Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) override {
    auto make = [this](EventLoop& loop, size_t) -> Result<std::unique_ptr<NetPort>> {
      return std::make_unique<FuzzPort>(loop, network_);
    };
    return TRY(NetDevice::create(config_, make, context));
  }

 private:
  NetConfig config_;
  FuzzNetwork& network_;
};

/// A card whose features and kind of ring `choice` decides.
inline Rig make_fuzz_card(FuzzNetwork& network, uint8_t choice, uint64_t refused) {
  static const bool quiet = log::configure({.filter = "off", .use_syslog = false}).has_value();
  (void)quiet;
  const bool packed = (choice & 1) != 0;
  NetConfig config{.network = "fuzz",
                   .mac = {2, 0, 0, 0, 0, 1},
                   .mtu = 1500,
                   .mrg_rxbuf = (choice & 2) != 0,
                   .packed_queue = packed};
  network.sends = choice >> 5;
  const RigOptions options{.place = RigPlace::kInline,
                           .packed = packed,
                           .refused_features = refused,
                           .max_queue_size = 16};
  return must_have_rig(
      Rig::create(std::make_unique<OpenedFuzzCard>(std::move(config), network), options));
}

}  // namespace crosvm
