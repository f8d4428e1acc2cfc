#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "devices/net/net_device.h"
#include "virtio/rig/rig.h"

namespace crosvm {

/// The network that a test plays: packets with their headers, one a message of a socket.
struct TestNetwork {
  Fd ours;
  Fd theirs;
  uint64_t offloads = kNetGuestOffloads | kNetHostOffloads;
  // What the card asked of its port, on the device's thread.
  std::atomic<uint64_t> guest_offloads = 0;
  std::atomic<bool> used = true;
  std::atomic<int> delay_ms = 0;  // until it is
  std::atomic<int> changes = 0;

  TestNetwork() {
    int ends[2];
    CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    ours = Fd(ends[0]);
    theirs = Fd(ends[1]);
  }

  /// A packet for the guest.
  void send(NetHeader header, std::span<const std::byte> packet) const {
    std::vector<std::byte> all(kNetHeaderBytes);
    std::memcpy(all.data(), &header, kNetHeaderBytes);
    all.insert(all.end(), packet.begin(), packet.end());
    ASSERT_EQ(::send(ours.get(), all.data(), all.size(), 0), static_cast<ssize_t>(all.size()));
  }
  struct Received {
    NetHeader header;
    std::vector<std::byte> packet;
  };
  /// What the guest sent, if it did.
  std::optional<Received> receive() const {
    std::vector<std::byte> all(kNetHeaderBytes + kMostPacketBytes);
    const ssize_t got = ::recv(ours.get(), all.data(), all.size(), 0);
    if (got < static_cast<ssize_t>(kNetHeaderBytes)) return std::nullopt;
    Received received;
    std::memcpy(&received.header, all.data(), kNetHeaderBytes);
    received.packet.assign(all.begin() + kNetHeaderBytes, all.begin() + got);
    return received;
  }
};

/// The port to it. A peer that has closed its end is a link that is down.
class TestPort : public NetPort {
 public:
  TestPort(EventLoop& loop, TestNetwork& network)
      : loop_(loop), network_(network), fd_(std::move(*network.theirs.duplicate())) {}
  ~TestPort() override { loop_.unwatch(watch_); }

  void begin(Events events) override {
    events_ = std::move(events);
    auto watch = loop_.watch(fd_, 0, [this](uint32_t ready) { on_ready(ready); });
    CHECK(watch.has_value());
    watch_ = *watch;
  }
  uint64_t offloads() const override { return network_.offloads; }
  void set_guest_offloads(uint64_t features) override {
    network_.guest_offloads = features;
    ++network_.changes;
  }
  void set_used(bool used) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(network_.delay_ms));
    network_.used = used;
  }
  void listen(bool on) override {
    listening_ = on;
    update();
  }
  std::optional<size_t> receive(const ChainBuffers& room) override {
    auto pieces = pieces_of(room);
    const ssize_t got = ::readv(fd_.get(), pieces.data(), static_cast<int>(pieces.size()));
    if (got <= 0) return std::nullopt;
    return static_cast<size_t>(got);
  }
  Sent send(const NetHeader& header, const ChainBuffers& packet) override {
    NetHeader ours = header;
    auto pieces = pieces_of(packet);
    pieces.insert(pieces.begin(), {&ours, sizeof(ours)});
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();
    if (::sendmsg(fd_.get(), &message, MSG_NOSIGNAL) >= 0 || errno != EAGAIN) return Sent::kDone;
    waiting_ = true;
    update();
    return Sent::kLater;
  }

 private:
  static std::vector<iovec> pieces_of(const ChainBuffers& buffers) {
    std::vector<iovec> pieces;
    for (const GuestSlice& slice : buffers.slices()) pieces.push_back(slice.as_iovec());
    return pieces;
  }
  void update() {
    if (watch_ == 0) return;
    (void)loop_.set_events(watch_, (listening_ ? EPOLLIN : 0U) | (waiting_ ? EPOLLOUT : 0U));
  }
  void on_ready(uint32_t ready) {
    if ((ready & EPOLLHUP) != 0) {
      loop_.unwatch(std::exchange(watch_, 0));
      return events_.link_changed(false);
    }
    if ((ready & EPOLLOUT) != 0) {
      waiting_ = false;
      update();
      events_.sendable();
    }
    if ((ready & EPOLLIN) != 0) events_.receivable();
  }

  EventLoop& loop_;
  TestNetwork& network_;
  Fd fd_;
  Events events_;
  EventLoop::WatchId watch_ = 0;
  bool listening_ = false;
  bool waiting_ = false;
};

/// A card with a port to each of these networks, which outlive it.
class OpenedTestCard : public OpenedDevice {
 public:
  OpenedTestCard(NetConfig config, std::vector<TestNetwork*> networks)
      : config_(std::move(config)), networks_(std::move(networks)) {
    config_.vq_pairs = static_cast<uint16_t>(networks_.size());
  }
  size_t rings() const override { return 0; }
  Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) override {
    auto make = [this](EventLoop& loop, size_t pair) -> Result<std::unique_ptr<NetPort>> {
      return std::make_unique<TestPort>(loop, *networks_[pair]);
    };
    return TRY(NetDevice::create(config_, make, context));
  }

 private:
  NetConfig config_;
  std::vector<TestNetwork*> networks_;
};

inline constexpr MacAddress kTestMac = {2, 0, 0, 0, 0, 9};

inline NetConfig test_card() { return {.network = "test", .mac = kTestMac, .mtu = 1500}; }

inline Rig make_card(std::vector<TestNetwork*> networks, const RigOptions& options,
                     NetConfig config = test_card()) {
  return must_have_rig(Rig::create(
      std::make_unique<OpenedTestCard>(std::move(config), std::move(networks)), options));
}

}  // namespace crosvm
