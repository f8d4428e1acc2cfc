#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "vhost/conformance/backend_conformance.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/local_backend.h"
#include "virtio/rig/echo_device.h"

namespace crosvm {
namespace {

EchoOptions echo_options(const SubjectOptions& options) {
  return {.mode = options.late ? EchoMode::kShuffled : EchoMode::kAtOnce,
          .queue_sizes = std::vector<uint16_t>(options.queues, 256)};
}

/// Requests of an EchoDevice.
class EchoSubject : public BackendSubject {
 public:
  std::vector<RigBuffer> request(unsigned number) override {
    const auto bytes = pattern(number);
    return {readable(bytes), writable(1), writable(bytes.size() - 1)};
  }
  void expect_answer(const RigUsed& used, unsigned number) override {
    EXPECT_TRUE(used.arrived) << "request " << number;
    if (!used.arrived) return;
    EXPECT_EQ(used.bytes, pattern(number));
    EXPECT_EQ(used.written, used.bytes.size());
  }

 private:
  static std::vector<std::byte> pattern(unsigned number) {
    std::vector<std::byte> bytes(2 + number % 100);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(number * 131 + i * 7);
    return bytes;
  }
};

class LocalSubject : public EchoSubject {
 public:
  explicit LocalSubject(const SubjectOptions& options) : options_(options) {}
  std::unique_ptr<DeviceBackend> take_backend() override {
    auto backend = LocalBackend::create("echo", open_echo(echo_options(options_)));
    CHECK(backend.has_value());
    return std::move(*backend);
  }

 private:
  SubjectOptions options_;
};

class VhostUserSubject : public EchoSubject {
 public:
  explicit VhostUserSubject(const SubjectOptions& options) {
    std::array<int, 2> pair{};
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
    ours_ = Fd(pair[0]);
    server_.emplace(Fd(pair[1]), echo_options(options));
  }
  std::unique_ptr<DeviceBackend> take_backend() override {
    auto backend = VhostUserBackend::create(
        control_.loop(), std::move(ours_),
        {.name = "vu-echo", .device_type = 0xffff, .max_queue_size = 256, .config_length = 8});
    if (!backend) ADD_FAILURE() << backend.error().what();
    CHECK(backend.has_value());
    return std::move(*backend);
  }

 private:
  Fd ours_;
  std::optional<EchoServer> server_;
  LoopThread control_;  // goes first: it lets go of the socket, and the server sees that
};

}  // namespace

BackendMaker local_maker() {
  return {.name = "Local",
          .abilities = {.packed = true, .config = true, .needs_reset = true, .many_queues = true},
          .missing = {},
          .make = [](const SubjectOptions& options) {
            return std::make_unique<LocalSubject>(options);
          }};
}

BackendMaker vhost_user_maker() {
  return {.name = "VhostUser",
          .abilities = {.packed = true, .config = true, .needs_reset = true, .many_queues = true},
          .missing = {},
          .make = [](const SubjectOptions& options) {
            return std::make_unique<VhostUserSubject>(options);
          }};
}

}  // namespace crosvm
