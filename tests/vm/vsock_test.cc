// Sockets between stock Debian guests and the host: by our device, in the VM and by vhost-user, and
// by the kernel's. In the guest socat has them, on the host this program.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vm_sockets.h>  // needs sys/socket.h
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "agent_guest.h"
#include "guest_run.h"
#include "vm_process.h"

namespace crosvm::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr unsigned kCid = 33;
constexpr const char* kDriver = "modprobe vmw_vsock_virtio_transport";

/// Sends 8 MiB by what `address` names, has them sent back after the end, and compares.
std::string echo_command(const std::string& address) {
  return "cd /tmp && head -c 8388608 /dev/urandom > sent && socat -t 60 - " + address +
         " < sent > came && [ \"$(md5sum < sent)\" = \"$(md5sum < came)\" ] && echo equal";
}

struct Address {
  sockaddr_storage bytes{};
  socklen_t size = 0;
  int family = 0;

  static Address unix_socket(const std::string& path) {
    Address made{.bytes = {}, .size = sizeof(sockaddr_un), .family = AF_UNIX};
    auto* address = reinterpret_cast<sockaddr_un*>(&made.bytes);
    address->sun_family = AF_UNIX;
    path.copy(address->sun_path, sizeof(address->sun_path) - 1);
    return made;
  }
  static Address vsock(unsigned cid, unsigned port) {
    Address made{.bytes = {}, .size = sizeof(sockaddr_vm), .family = AF_VSOCK};
    auto* address = reinterpret_cast<sockaddr_vm*>(&made.bytes);
    address->svm_family = AF_VSOCK;
    address->svm_cid = cid;
    address->svm_port = port;
    return made;
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&bytes); }
};

bool readable_soon(int fd, int ms = 60'000) {
  pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&waiting, 1, ms) == 1;
}

std::string read_to_end(const Fd& fd) {
  std::string all;
  std::vector<char> part(1 << 16);
  while (readable_soon(fd.get())) {
    const ssize_t got = ::recv(fd.get(), part.data(), part.size(), 0);
    if (got <= 0) break;
    all.append(part.data(), static_cast<size_t>(got));
  }
  return all;
}

/// A program of the host that takes each connection to its end and sends all of it back.
class EchoServer {
 public:
  explicit EchoServer(const Address& at) : fd_(::socket(at.family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    EXPECT_EQ(::bind(fd_.get(), at.get(), at.size), 0) << std::strerror(errno);
    EXPECT_EQ(::listen(fd_.get(), 16), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~EchoServer() {
    done_ = true;
    thread_.join();
  }
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;

 private:
  void serve() {
    while (!done_) {
      if (!readable_soon(fd_.get(), 100)) continue;
      Fd peer(::accept(fd_.get(), nullptr, nullptr));
      const std::string all = read_to_end(peer);
      for (size_t at = 0; at < all.size();) {
        const ssize_t put = ::send(peer.get(), &all[at], all.size() - at, MSG_NOSIGNAL);
        if (put <= 0) break;
        at += static_cast<size_t>(put);
      }
    }
  }

  Fd fd_;
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

/// Sends 4 MiB to a server of the guest that sends them back; what is wrong, or nothing.
std::string echo_with(const Address& at) {
  std::string sent(4 << 20, '\0');
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 2654435761u >> 24);
  for (int tries = 0; tries < 100; ++tries) {
    const Fd fd(::socket(at.family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    // Until the guest listens.
    if (::connect(fd.get(), at.get(), at.size) != 0) {
      std::this_thread::sleep_for(200ms);
      continue;
    }
    std::thread sender([&] {
      for (size_t at_byte = 0; at_byte < sent.size();) {
        const ssize_t put = ::send(fd.get(), &sent[at_byte], sent.size() - at_byte, MSG_NOSIGNAL);
        if (put <= 0) break;
        at_byte += static_cast<size_t>(put);
      }
      ::shutdown(fd.get(), SHUT_WR);
    });
    const std::string came = read_to_end(fd);
    sender.join();
    if (came == sent) return {};
    if (!came.empty()) return "other bytes came back, " + std::to_string(came.size());
    std::this_thread::sleep_for(200ms);
  }
  return "the guest does not answer";
}

constexpr const char* kGuestServer =
    "setsid socat -t 60 VSOCK-LISTEN:1100,fork EXEC:cat < /dev/null > /dev/null 2>&1 &";

/// A program of the host that listens, and takes one connection when it is told to.
class OneServer {
 public:
  explicit OneServer(const Address& at) : fd_(::socket(at.family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    EXPECT_EQ(::bind(fd_.get(), at.get(), at.size), 0) << std::strerror(errno);
    EXPECT_EQ(::listen(fd_.get(), 1), 0);
  }
  Fd accept() const {
    return readable_soon(fd_.get()) ? Fd(::accept(fd_.get(), nullptr, nullptr)) : Fd();
  }

 private:
  Fd fd_;
};

std::string pattern(size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += "crosvm\n";
  text.resize(bytes);
  return text;
}

/// Programs of the host at port 1025 that do not behave as the guest's would wish.
void expect_odd_peers(AgentGuest& guest, const OneServer& server) {
  constexpr size_t kBytes = 4 << 20;
  const auto from_guest = [&guest](const std::string& source) {
    return guest.shell("timeout 100 sh -c '" + source + " | socat -u - VSOCK-CONNECT:2:1025'")
        .status;
  };
  {  // One that reads late, when the sender has no credit any more.
    std::string came;
    std::thread reader([&] {
      const Fd peer = server.accept();
      std::this_thread::sleep_for(2s);
      came = read_to_end(peer);
    });
    EXPECT_EQ(from_guest("yes crosvm | head -c " + std::to_string(kBytes)), 0);
    reader.join();
    EXPECT_TRUE(came == pattern(kBytes)) << came.size();
  }
  // One that dies in the middle of what it is sent.
  std::thread dying([&] {
    const Fd peer = server.accept();
    std::vector<char> part(1 << 16);
    for (int i = 0; i < 4; ++i) (void)::recv(peer.get(), part.data(), part.size(), 0);
  });
  EXPECT_NE(from_guest("yes crosvm"), 124);  // 124: it would have gone on
  dying.join();
}

/// What all three have to do; `guest_peer` leads from the host to port 1100 of the guest.
void expect_sockets(AgentGuest& guest, const Address& guest_peer, const OneServer& odd) {
  guest.output_of(kDriver);
  EXPECT_THAT(guest.output_of(echo_command("VSOCK-CONNECT:2:1024")), HasSubstr("equal"));
  // Many, one after the other.
  const std::string many = std::getenv("CROSVM_TEST_FULL") != nullptr ? "1000" : "50";
  EXPECT_EQ(guest.output_of("for i in $(seq " + many +
                            "); do echo $i | socat -t 60 - VSOCK-CONNECT:2:1024; done | md5sum"),
            guest.output_of("seq " + many + " | md5sum"));
  if (testing::Test::HasFailure()) return;  // a guest that does not answer would be waited for long
  expect_odd_peers(guest, odd);
  guest.output_of(kGuestServer);
  EXPECT_EQ(echo_with(guest_peer), "");
}

Fd connect_to(const Address& at) {
  Fd fd(::socket(at.family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(fd.get(), at.get(), at.size), 0) << std::strerror(errno);
  return fd;
}

/// The driver goes and comes back, as in a reboot: connections end, and there are new ones.
void expect_new_start(AgentGuest& guest, const Address& guest_peer) {
  if (testing::Test::HasFailure()) return;
  const Fd old = connect_to(guest_peer);
  char byte = 'x';
  EXPECT_EQ(::send(old.get(), &byte, 1, MSG_NOSIGNAL), 1);
  EXPECT_TRUE(readable_soon(old.get()) && ::recv(old.get(), &byte, 1, 0) == 1);  // it stands
  guest.output_of(
      "cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport && device=$(basename virtio*) && "
      "echo $device > unbind && echo $device > bind");
  EXPECT_TRUE(readable_soon(old.get()) && ::recv(old.get(), &byte, 1, 0) <= 0);
  guest.shell("pkill socat");
  guest.output_of(kGuestServer);
  EXPECT_EQ(echo_with(guest_peer), "");
}

class VsockTest : public testing::Test {
 protected:
  std::string path(const std::string& name) { return scratch_.path() + "/" + name; }
  ScratchDirectory scratch_;
};

TEST_F(VsockTest, OurDeviceLeadsToUnixSockets) {
  EchoServer server(Address::unix_socket(path("service")));
  const OneServer odd(Address::unix_socket(path("odd")));
  AgentGuest guest(
      {.vcpus = 2,
       .extra = {"--vsock", "cid=33,backend=user,connect=[1024:" + path("service") +
                                ",1025:" + path("odd") + "],listen=[1100:" + path("guest") + "]"}});
  expect_sockets(guest, Address::unix_socket(path("guest")), odd);
  expect_new_start(guest, Address::unix_socket(path("guest")));
  // Nothing else is reached.
  EXPECT_NE(guest.shell("socat -T 5 - VSOCK-CONNECT:2:1026 < /dev/null").status, 0);
  EXPECT_NE(guest.shell("socat -T 5 - VSOCK-CONNECT:2:22 < /dev/null").status, 0);
  const Fd held = connect_to(Address::unix_socket(path("guest")));
  EXPECT_EQ(guest.power_off(), 0) << guest.vm().errors();
  char byte = 0;
  EXPECT_TRUE(readable_soon(held.get()) && ::recv(held.get(), &byte, 1, 0) <= 0);
  EXPECT_FALSE(std::filesystem::exists(path("guest")));
}

TEST_F(VsockTest, OurDeviceByVhostUser) {
  EchoServer server(Address::unix_socket(path("service")));
  const OneServer odd(Address::unix_socket(path("odd")));
  VmProcess device({"--no-syslog", "device", "vsock", "--cid", "33", "--connect",
                    "1024:" + path("service"), "--connect", "1025:" + path("odd"), "--listen",
                    "1100:" + path("guest"), "--socket-path", path("frontend")});
  AgentGuest guest({.vcpus = 2,
                    .extra = {"--vhost-user", "vsock,socket=" + path("frontend"),
                              "--vhost-user-connect-timeout-ms", "60000"}});
  expect_sockets(guest, Address::unix_socket(path("guest")), odd);
  expect_new_start(guest, Address::unix_socket(path("guest")));
  EXPECT_EQ(guest.power_off(), 0) << guest.vm().errors();
  EXPECT_EQ(device.wait_exit(60s), 0) << device.errors();
}

TEST_F(VsockTest, TheKernelsDevice) {
  if (::access("/dev/vhost-vsock", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/vhost-vsock";
  EchoServer server(Address::vsock(VMADDR_CID_ANY, 1024));
  const OneServer odd(Address::vsock(VMADDR_CID_ANY, 1025));
  AgentGuest guest({.vcpus = 2, .extra = {"--vsock", "cid=33"}});
  VmProcess other(guest_arguments({.extra = {"--vsock", "cid=33"}}, ""));
  EXPECT_EQ(other.wait_exit(60s), 1);
  EXPECT_THAT(other.errors(), HasSubstr("another VM of this host has context ID 33"));
  expect_sockets(guest, Address::vsock(kCid, 1100), odd);
  EXPECT_EQ(guest.power_off(), 0) << guest.vm().errors();
}

}  // namespace
}  // namespace crosvm::test
