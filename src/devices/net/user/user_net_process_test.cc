// The user network in the process that crosvm gives it: its jail, its network, and a card on top.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>
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

/// Gives this process a /dev of its own, with all that is there, to which files can be added.
/// Returns what failed.
std::string own_dev() {
  char folder[] = "/tmp/crosvm-dev-XXXXXX";
  if (!::mkdtemp(folder)) return "no folder";
  if (::mount("none", folder, "tmpfs", 0, nullptr) != 0) return "no tmpfs";
  for (const auto& each : std::filesystem::directory_iterator("/dev")) {
    const std::filesystem::path place = folder / each.path().filename();
    if (each.is_symlink()) {
      std::filesystem::copy_symlink(each.path(), place);
      continue;
    }
    if (each.is_directory()) {
      std::filesystem::create_directory(place);
    } else {
      std::ofstream(place.c_str());
    }
    ::mount(each.path().c_str(), place.c_str(), nullptr, MS_BIND | MS_REC, nullptr);
  }
  const int bound = ::mount(folder, "/dev", nullptr, MS_BIND | MS_REC, nullptr);
  ::umount2(folder, MNT_DETACH);
  ::rmdir(folder);
  return bound == 0 ? "" : "no /dev";
}

/// A socket that receives the records of the system log.
Fd system_log() {
  ::unlink("/dev/log");
  Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, "/dev/log");
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  const timeval patience{.tv_sec = 20, .tv_usec = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  return socket;
}

/// The Unix sockets of this thread's network that send without connection, as descriptors of
/// processes name them.
std::vector<std::string> unix_datagram_sockets() {
  std::vector<std::string> found;
  std::ifstream lines("/proc/thread-self/net/unix");
  std::string line;
  std::getline(lines, line);  // the titles
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string number, references, protocol, flags, type, state, inode;
    words >> number >> references >> protocol >> flags >> type >> state >> inode;
    if (type == "0002") found.push_back("socket:[" + inode + "]");
  }
  return found;
}

std::vector<std::string> descriptors_of(pid_t pid) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& each :
       std::filesystem::directory_iterator(format_text("/proc/{}/fd", pid), error)) {
    found.push_back(std::filesystem::read_symlink(each.path(), error).string());
  }
  return found;
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

TEST_F(UserNetProcessTest, ItsSocketForTheSystemLogReachesNobodyElseOfTheHost) {
  ASSERT_EQ(own_dev(), "");
  const Fd receiver = system_log();
  auto rig = start("");
  ASSERT_TRUE(rig.has_value()) << rig.error().what();
  send(*rig, tcp_frame(kGuest, 4000, ip("127.0.0.1"), 22));
  std::string record;
  do {
    record.assign(1000, '\0');
    const ssize_t got = ::recv(receiver.get(), record.data(), record.size(), 0);
    ASSERT_GT(got, 0);
    record.resize(static_cast<size_t>(got));
  } while (!record.contains("tcp to 127.0.0.1 port 22 is denied"));
  const auto descriptors = descriptors_of(host_->process("net0"));
  if (descriptors.empty()) GTEST_SKIP() << "only root sees what it has open";
  const auto reachable = unix_datagram_sockets();
  EXPECT_THAT(reachable, testing::Not(testing::IsEmpty())) << "that of the receiver, at least";
  for (const std::string& socket : reachable) {
    EXPECT_THAT(descriptors, testing::Not(testing::Contains(socket)));
  }
  ::unlink("/dev/log");
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
