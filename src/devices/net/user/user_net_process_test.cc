// The user network in the process that crosvm gives it: its jail, its network, and a card on top.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <span>
#include <thread>

#include "base/format.h"
#include "devices/all_devices.h"
#include "devices/net/user/rig/test_network.h"
#include "devices/net/user_net_device.h"
#include "jail/rig/worker_host.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

constexpr uint16_t kRx = 0;
constexpr uint16_t kTx = 1;
constexpr uint16_t kFrameRoom = 1600;

const IpAddress kGuest = ip("10.0.2.15");
const IpAddress kServer = ip("192.0.2.1");

std::string status_line(pid_t pid, const std::string& field) {
  std::ifstream lines(format_text("/proc/{}/status", pid));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(field + ":")) return line.substr(field.size() + 2);
  }
  return {};
}
std::string namespace_of(pid_t pid, const std::string& kind) {
  char name[64] = {};
  const std::string path = format_text("/proc/{}/ns/{}", pid, kind);
  return ::readlink(path.c_str(), name, sizeof(name) - 1) > 0 ? name : "";
}

class UserNetProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = enter_test_network(); !why.empty()) GTEST_SKIP() << why;
    host_ = *WorkerHost::create();
  }
  /// A card whose driver has set it up.
  Result<Rig> start(const std::string& text) {
    auto backend = TRY(host_->run("net0", device_type<UserNetFactory>(), text));
    host_->go();
    return Rig::attach(std::move(backend));
  }
  static void send(Rig& rig, const Bytes& frame) {
    const Bytes packet = Bytes(kNetHeaderBytes) + frame;
    rig.driver(kTx).send({readable(std::as_bytes(std::span(packet)))});
    rig.driver(kTx).wait_used();
  }
  /// The next frame for the guest.
  static Bytes receive(Rig& rig) {
    rig.driver(kRx).send({writable(kFrameRoom)});
    const RigUsed used = rig.driver(kRx).wait_used();
    Bytes frame;
    for (size_t i = kNetHeaderBytes; i < used.written; ++i) {
      frame.push_back(static_cast<uint8_t>(used.byte(i)));
    }
    return frame;
  }

  std::unique_ptr<WorkerHost> host_;
};

TEST_F(UserNetProcessTest, AGuestGetsItsAddressAndAnAnswerFromOutside) {
  auto rig = start("forward=[tcp:8080-:80]");
  ASSERT_TRUE(rig.has_value()) << rig.error().what();
  send(*rig, dhcp_discover());
  const Bytes offer = receive(*rig);
  EXPECT_FALSE(std::ranges::search(offer, bytes_of(kGuest)).empty());
  send(*rig, arp_request(kGuest, ip("10.0.2.2")));
  (void)receive(*rig);
  const Fd server = bound_socket(SOCK_DGRAM, kServer);
  send(*rig, udp_frame(kGuest, 4000, kServer, port_of(server), bytes_of("hello")));
  Bytes data(100);
  ssize_t got = -1;
  sockaddr_storage from{};
  for (int tries = 0; tries < 2000 && got < 0; ++tries) {
    socklen_t size = sizeof(from);
    got = ::recvfrom(server.get(), data.data(), data.size(), 0, reinterpret_cast<sockaddr*>(&from),
                     &size);
    if (got < 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_EQ(got, 5);
  ASSERT_EQ(::sendto(server.get(), "back", 4, 0, reinterpret_cast<sockaddr*>(&from), sizeof(from)),
            4);
  const Bytes answer = receive(*rig);
  EXPECT_FALSE(std::ranges::search(answer, bytes_of("back")).empty());
  // A name is asked of the host's resolver, which only the file in its root tells.
  const Fd resolver = bound_socket(SOCK_DGRAM, kServer, 53);
  send(*rig, udp_frame(kGuest, 4001, ip("10.0.2.3"), 53, bytes_of("a question")));
  for (int tries = 0; tries < 2000; ++tries) {
    got = ::recv(resolver.get(), data.data(), data.size(), 0);
    if (got >= 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(got, 10);
  EXPECT_TRUE(host_->deaths().empty());
}

TEST_F(UserNetProcessTest, AllButTheNetworkIsItsOwn) {
  auto rig = start("forward=[tcp:8080-:80]");
  ASSERT_TRUE(rig.has_value()) << rig.error().what();
  const pid_t pid = host_->process("net0");
  ASSERT_NE(pid, 0);
  EXPECT_EQ(namespace_of(pid, "net"), namespace_of(::getpid(), "net"));
  for (const char* kind : {"user", "pid", "mnt", "ipc", "uts", "cgroup"}) {
    EXPECT_NE(namespace_of(pid, kind), namespace_of(::getpid(), kind)) << kind;
  }
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_EQ(status_line(pid, set), "0000000000000000") << set;
  }
  EXPECT_EQ(status_line(pid, "NoNewPrivs"), "1");
  EXPECT_EQ(status_line(pid, "Seccomp"), "2");
  EXPECT_EQ(listening_sockets(), std::vector<std::string>{"tcp 0100007F:1F90"});
}

TEST_F(UserNetProcessTest, APortThatIsTakenIsSaidAtTheStart) {
  const Fd taken = bound_socket(SOCK_STREAM, ip("127.0.0.1"));
  auto rig = start(format_text("forward=[tcp:{}-:80]", port_of(taken)));
  ASSERT_FALSE(rig.has_value());
  EXPECT_NE(rig.error().what().find("net0: forward=tcp:127.0.0.1:"), std::string::npos)
      << rig.error().what();
  EXPECT_NE(rig.error().what().find("give it another port"), std::string::npos);
}

TEST_F(UserNetProcessTest, ItIsStartedBeforeThoseWithoutNetwork) {
  ASSERT_TRUE(host_->run("rng", *find_device("rng"), "").has_value());
  auto late = host_->run("net0", device_type<UserNetFactory>(), "");
  ASSERT_FALSE(late.has_value());
  EXPECT_NE(late.error().what().find("the spawner has left"), std::string::npos)
      << late.error().what();
}

}  // namespace
}  // namespace crosvm
