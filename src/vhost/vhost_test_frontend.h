#pragma once

#include <sys/socket.h>

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "vhost/vhost_user_channel.h"
#include "vhost/vhost_user_protocol.h"
#include "vhost/vhost_user_server.h"
#include "virtio/rig/echo_device.h"
#include "virtio/rig/rig_driver.h"

namespace crosvm {

/// A front-end written by hand, for tests of the server: sends what the test says, and turns the
/// loop of the server while it waits.
class VhostTestFrontend : public RigWaiter {
 public:
  /// Where the front-end pretends to have guest address 0.
  static constexpr uint64_t kUser = 0x7f0000000000;

  /// Makes the device that is served.
  using MakeEcho = std::function<std::unique_ptr<EchoDevice>(EchoOptions, DeviceContext)>;

  explicit VhostTestFrontend(
      EchoOptions options, MakeEcho make =
                               [](EchoOptions wanted, DeviceContext context) {
                                 return std::make_unique<EchoDevice>(std::move(wanted),
                                                                     std::move(context));
                               })
      : loop_(must(EventLoop::create())), make_(std::move(make)) {
    make_server(std::move(options));
    connect();
  }

  /// Another server, as after a crash; the old one has nobody to serve any more.
  void make_server(EchoOptions options) {
    channel_.reset();
    server_.reset();
    server_ = must(VhostUserServer::create(
        *loop_, "echo0",
        [&](DeviceEvents& events) -> Result<std::unique_ptr<VirtioDevice>> {
          return make_(std::move(options),
                       DeviceContext{.loop = *loop_, .events = events, .rings = {}});
        },
        [this](const Error& why) { gone_.push_back(why); }));
  }
  void connect() {
    std::array<int, 2> pair{};
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
    channel_.emplace(Fd(pair[0]));
    CHECK(server_->serve(Fd(pair[1])));
  }
  void disconnect() { channel_.reset(); }

  VhostUserChannel& channel() { return *channel_; }
  VhostUserServer& server() { return *server_; }
  EventLoop& loop() { return *loop_; }
  RigMemory& memory() { return memory_; }
  const std::vector<Error>& gone() const { return gone_; }

  void turn(int times = 10) {
    for (int i = 0; i < times; ++i) CHECK(loop_->run_once(std::chrono::milliseconds(0)));
  }
  void wait(const Fd&, Clock::time_point) override {
    CHECK(loop_->run_once(std::chrono::milliseconds(2)));
  }
  bool broken() const override { return false; }

  void send(VhostUserMessage message) { CHECK(channel_->send(std::move(message))); }
  template <class T>
  void send(uint32_t request, const T& payload, Fd fd = {}) {
    VhostUserMessage message = vhost_user_message(request, payload);
    if (fd) message.fds.push_back(std::move(fd));
    send(std::move(message));
  }
  /// What comes next; nothing when the server is silent, or has hung up.
  std::optional<VhostUserMessage> receive(int turns = 40) {
    for (; turns > 0; --turns) {
      CHECK(loop_->run_once(std::chrono::milliseconds(0)));
      auto message = channel_->receive();
      if (!message) return std::nullopt;
      if (*message) return std::move(*message);
    }
    return std::nullopt;
  }
  /// A request with an answer of one number.
  std::optional<uint64_t> ask(uint32_t request) {
    send(vhost_user_message(request));
    const auto answer = receive();
    return answer ? answer->payload_as<uint64_t>() : std::nullopt;
  }
  /// Whether a request is acknowledged; negotiate REPLY_ACK before.
  bool ack(VhostUserMessage message) {
    const uint32_t request = message.request;
    message.flags |= kVhostUserNeedReply;
    send(std::move(message));
    const auto answer = receive();
    CHECK(answer && answer->request == request && answer->is_reply());
    const auto value = answer->payload_as<uint64_t>();
    CHECK(value);
    return *value == 0;
  }
  template <class T>
  bool ack(uint32_t request, const T& payload, Fd fd = {}) {
    VhostUserMessage message = vhost_user_message(request, payload);
    if (fd) message.fds.push_back(std::move(fd));
    return ack(std::move(message));
  }

  void negotiate(uint64_t features, bool bit30 = true) {
    features |= bit30 ? vhost_user_bit(kVhostUserProtocolFeatures) : 0;
    send(vhost_user_message(VHOST_USER_SET_OWNER));
    const auto offered = ask(VHOST_USER_GET_PROTOCOL_FEATURES);
    CHECK(offered);
    send(VHOST_USER_SET_PROTOCOL_FEATURES, *offered);
    send(VHOST_USER_SET_FEATURES, features);
  }
  VhostUserMessage memory_table() {
    const auto regions = memory_.guest().regions();
    VhostUserMessage message = vhost_user_message(
        VHOST_USER_SET_MEM_TABLE,
        VhostUserMemoryHeader{.num_regions = static_cast<uint32_t>(regions.size()), .padding = 0});
    for (const RamRegion& region : regions) {
      message.add(describe(region));
      message.fds.push_back(copy(memory_.guest().memfd()));
    }
    return message;
  }
  VhostUserMemoryRegion describe(const RamRegion& region) const {
    return {.guest_address = region.base.value,
            .size = region.size,
            .user_address = kUser + region.base.value,
            .mmap_offset = region.offset};
  }
  VhostUserVringAddr addresses(uint16_t index) {
    const VringAddresses& at = drivers_[index]->ring().addresses();
    return {.index = index,
            .flags = 0,
            .descriptor = kUser + at.descriptor_area.value,
            .used = kUser + at.device_area.value,
            .available = kUser + at.driver_area.value,
            .log = 0};
  }
  RigDriver& add_driver(bool packed, uint16_t size = 16) {
    drivers_.push_back(std::make_unique<RigDriver>(
        memory_, *this,
        RigDriver::Options{.ring = {.size = size, .packed = packed, .event_idx = true},
                           .indirect = true}));
    return *drivers_.back();
  }
  RigDriver& driver(uint16_t index) { return *drivers_[index]; }
  void start_ring(uint16_t index, uint32_t base, bool enable = true) {
    const RigDriver& driver = *drivers_[index];
    send(VHOST_USER_SET_VRING_NUM,
         VhostUserVringState{.index = index, .num = driver.options().ring.size});
    send(VHOST_USER_SET_VRING_ADDR, addresses(index));
    send(VHOST_USER_SET_VRING_BASE, VhostUserVringState{.index = index, .num = base});
    send(VHOST_USER_SET_VRING_CALL, uint64_t{index}, copy(driver.call_descriptor()));
    send(VHOST_USER_SET_VRING_KICK, uint64_t{index}, copy(driver.kick_descriptor()));
    if (enable) {
      send(VHOST_USER_SET_VRING_ENABLE, VhostUserVringState{.index = index, .num = 1});
    }
    turn();
  }
  static Fd copy(const Fd& fd) { return must(fd.duplicate()); }
  template <class T>
  static T must(Result<T> result) {
    CHECK(result.has_value());
    return std::move(*result);
  }

 private:
  RigMemory memory_;
  std::unique_ptr<EventLoop> loop_;
  MakeEcho make_;
  std::vector<Error> gone_;
  std::unique_ptr<VhostUserServer> server_;
  std::optional<VhostUserChannel> channel_;
  std::vector<std::unique_ptr<RigDriver>> drivers_;
};

}  // namespace crosvm
