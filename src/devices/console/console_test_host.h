#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/virtio_console.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "devices/console/console_device.h"
#include "virtio/rig/rig.h"

namespace crosvm {

inline std::pair<Fd, Fd> make_test_pipe(int capacity = 65536) {
  int ends[2];
  CHECK(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
  CHECK(::fcntl(ends[1], F_SETPIPE_SZ, capacity) >= 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

inline std::pair<Fd, Fd> make_test_socket() {
  int ends[2];
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

inline void send_all(const Fd& fd, std::string_view text) {
  CHECK(::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

/// What the device writes to `fd`, until there are `size` bytes or nothing more comes.
inline std::string receive(Rig& rig, const Fd& fd, size_t size) {
  const bool is_inline = rig.options().place == RigPlace::kInline;
  std::string all;
  while (all.size() < size) {
    for (int turn = 0; is_inline && turn < 8; ++turn) rig.run_once();
    pollfd wait{.fd = fd.get(), .events = POLLIN, .revents = 0};
    if (::poll(&wait, 1, is_inline ? 0 : 5000) <= 0) break;
    std::string part(size - all.size(), '\0');
    const ssize_t got = ::read(fd.get(), part.data(), part.size());
    if (got <= 0) break;
    all += part.substr(0, static_cast<size_t>(got));
  }
  return all;
}

inline std::string text_of(const RigUsed& used) {
  return {reinterpret_cast<const char*>(used.bytes.data()), used.written};
}

/// A console device whose host side is the test.
inline Rig make_console(std::string_view text, ConsoleResources resources,
                        const RigOptions& options) {
  ::signal(SIGPIPE, SIG_IGN);  // as in every process of ours that runs devices
  auto device = opened_device<ConsoleFactory>(text, std::move(resources));
  CHECK(device.has_value());
  return must_have_rig(
      Rig::create(device_type<ConsoleFactory>(), text, *std::move(device), options));
}

/// The driver's part of the control queues, as Linux plays it.
class ConsoleDriver {
 public:
  struct Message {
    uint32_t port;
    uint16_t event;
    uint16_t value;
    std::string rest;
    friend bool operator==(const Message&, const Message&) = default;
    friend std::ostream& operator<<(std::ostream& to, const Message& message) {
      return to << "{port " << message.port << " event " << message.event << " value "
                << message.value << " " << testing::PrintToString(message.rest) << "}";
    }
  };

  explicit ConsoleDriver(Rig& rig) : rig_(rig) { offer(8); }
  void offer(int buffers, size_t size = 64) {
    for (int i = 0; i < buffers; ++i) rig_.driver(2).send({writable(size)});
  }
  void say(uint32_t port, uint16_t event, uint16_t value) {
    const virtio_console_control header{.id = port, .event = event, .value = value};
    const RigToken token = rig_.driver(3).send({readable(header)});
    EXPECT_TRUE(rig_.driver(3).wait_used(token).arrived);
  }
  Message next() {
    const RigUsed used = rig_.driver(2).wait_used();
    if (used.written < sizeof(virtio_console_control)) return {~0U, 0, 0, "nothing"};
    offer(1);
    virtio_console_control header;
    std::memcpy(&header, used.bytes.data(), sizeof(header));
    return {header.id, header.event, header.value, text_of(used).substr(sizeof(header))};
  }
  /// Nothing has come, nor comes.
  bool silent() {
    rig_.settle();
    return !rig_.driver(2).wait_used(std::chrono::milliseconds(20)).arrived;
  }
  void open(uint32_t port) {
    say(port, VIRTIO_CONSOLE_PORT_READY, 1);
    EXPECT_EQ(next().event, VIRTIO_CONSOLE_PORT_OPEN);
    say(port, VIRTIO_CONSOLE_PORT_OPEN, 1);
  }

 private:
  Rig& rig_;
};

}  // namespace crosvm
