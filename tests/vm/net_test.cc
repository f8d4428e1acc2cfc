// Network cards as a stock Debian guest sees them, on taps of the host, moved by us or its kernel.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "agent_guest.h"
#include "base/fd.h"

namespace crosvm::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kHost4 = "10.77.0.1";
constexpr const char* kHost6 = "fd77::1";

/// A server of the host at a port of its own: keeps what a client sends until that has no more, and
/// sends it all back.
class EchoServer {
 public:
  EchoServer() : listener_(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    socklen_t length = sizeof(any);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&any), sizeof(any)), 0);
    EXPECT_EQ(::listen(listener_.get(), 8), 0);
    EXPECT_EQ(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&any), &length), 0);
    port_ = ntohs(any.sin6_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~EchoServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;
  int port() const { return port_; }

 private:
  void serve() const {
    while (true) {
      const Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client) return;
      std::vector<char> all;
      std::array<char, 65536> part;
      ssize_t got = 0;
      while ((got = ::recv(client.get(), part.data(), part.size(), 0)) > 0) {
        all.insert(all.end(), part.begin(), part.begin() + got);
      }
      for (size_t sent = 0; sent < all.size();) {
        const ssize_t put =
            ::send(client.get(), all.data() + sent, all.size() - sent, MSG_NOSIGNAL);
        if (put <= 0) break;
        sent += static_cast<size_t>(put);
      }
    }
  }

  Fd listener_;
  int port_ = 0;
  std::thread thread_;
};

void host(const std::string& command) {
  EXPECT_EQ(std::system(command.c_str()), 0) << command;  // NOLINT: it is ours
}

struct Card {
  const char* name;
  bool made_by_us;  // else a tap of ours with packets of 9000 bytes
  bool vhost;
  int pairs;
};

class NetTest : public testing::TestWithParam<Card> {
 protected:
  void SetUp() override {
    if (GetParam().made_by_us) return;
    host(std::string("ip tuntap add mode tap name bigtap vnet_hdr") +
         (GetParam().pairs > 1 ? " multi_queue" : ""));
    host("ip link set bigtap mtu 9000 up");
    host(std::string("ip addr add ") + kHost4 + "/24 dev bigtap");
  }
  void TearDown() override {
    if (!GetParam().made_by_us) host("ip link del bigtap");
  }

  static std::string tap() { return GetParam().made_by_us ? "vmtap0" : "bigtap"; }
  static GuestBoot boot() {
    const Card& card = GetParam();
    std::string net = card.made_by_us ? std::string("host-ip=") + kHost4 +
                                            ",netmask=255.255.255.0,mac=02:00:00:00:77:01"
                                      : "tap-name=bigtap,mac=02:00:00:00:77:02";
    net += ",vq-pairs=" + std::to_string(card.pairs);
    if (card.vhost) net += ",vhost-net";
    GuestBoot boot{.vcpus = card.pairs, .memory_mib = 768};
    boot.extra = {"--net", net};
    return boot;
  }
  /// The card's name in the guest, with its addresses set.
  static std::string set_up(AgentGuest& guest) {
    const std::string name = guest.output_of(
        "modprobe virtio_net; cd /sys/class/net; for i in 1 2 3 4 5 6 7 8 9; do "
        "ls | grep -v -x lo && exit 0; sleep 1; done; exit 1");
    const std::string card = name.substr(0, name.find('\n'));
    guest.output_of("ip link set " + card + " up && ip addr add 10.77.0.2/24 dev " + card +
                    " && ip -6 addr add fd77::2/64 nodad dev " + card);
    return card;
  }
  static void ping(AgentGuest& guest) {
    for (const char* to : {kHost4, kHost6}) {
      guest.output_of(std::string("ping -q -c 3 -i 0.2 -W 20 ") + to);
    }
  }
  /// A file goes to the host and comes back, over both protocols, and is the same.
  static void carry(AgentGuest& guest, const EchoServer& server, int mib) {
    guest.output_of("head -c " + std::to_string(mib) + "M /dev/urandom > /tmp/there");
    for (const std::string& to :
         {std::string("TCP4:") + kHost4, "TCP6:[" + std::string(kHost6) + "]"}) {
      guest.output_of("socat -t 120 - " + to + ":" + std::to_string(server.port()) +
                      " < /tmp/there > /tmp/back && [ \"$(sha256sum < /tmp/there)\" = "
                      "\"$(sha256sum < /tmp/back)\" ]");
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Cards, NetTest,
                         testing::Values(Card{"Worker", true, false, 1},
                                         Card{"WorkerOfFour", false, false, 4},
                                         Card{"Vhost", false, true, 1},
                                         Card{"VhostOfFour", true, true, 4}),
                         [](const auto& info) { return info.param.name; });

TEST_P(NetTest, CarriesFilesHoweverTheCardIsSetAndComesBack) {
  const EchoServer server;
  AgentGuest guest(boot());
  host(std::string("ip -6 addr add ") + kHost6 + "/64 nodad dev " + tap());
  std::string card = set_up(guest);
  ping(guest);
  carry(guest, server, 16);

  const std::string features = guest.output_of("ethtool -k " + card);
  for (const char* feature : {"tx-checksumming: on", "tcp-segmentation-offload: on",
                              "tx-tcp6-segmentation: on", "scatter-gather: on"}) {
    EXPECT_THAT(features, HasSubstr(feature));
  }
  for (const char* toggle : {"tso off", "gso off", "tx off", "rx-gro-hw off", "gro off", "sg off",
                             "tx on sg on tso on gso on gro on rx-gro-hw on"}) {
    SCOPED_TRACE(toggle);
    guest.output_of("ethtool -K " + card + " " + toggle);
    carry(guest, server, 2);
  }

  const std::string mtu = guest.output_of("cat /sys/class/net/" + card + "/mtu");
  EXPECT_EQ(mtu, GetParam().made_by_us ? "1500\n" : "9000\n");
  guest.output_of("ip link set " + card + " mtu 1280");
  carry(guest, server, 2);
  guest.output_of("ip link set " + card + " mtu " + mtu);

  if (GetParam().pairs > 1) {
    EXPECT_THAT(guest.output_of("ethtool -l " + card),
                HasSubstr("Combined:\t" + std::to_string(GetParam().pairs)));
    for (int pairs : {1, GetParam().pairs}) {
      guest.output_of("ethtool -L " + card + " combined " + std::to_string(pairs));
      carry(guest, server, 4);
    }
  }
  guest.output_of("ip link set " + card + " promisc on && ip link add link " + card +
                  " name v5 type vlan id 5 && ip link del v5 && ip link set " + card +
                  " promisc off");
  ping(guest);

  // The driver comes and goes.
  for (int round = 0; round < 5; ++round) {
    guest.output_of(
        "cd /sys/bus/virtio/drivers/virtio_net && for d in virtio*; do echo $d > unbind && "
        "echo $d > bind; done");
    card = set_up(guest);
    ping(guest);
  }
  carry(guest, server, 4);

  // The link does.
  host("ip link set " + tap() + " down");
  guest.shell(std::string("ping -q -c 2 -W 1 ") + kHost4);
  const std::string carrier = "cat /sys/class/net/" + card + "/carrier";
  guest.output_of("for i in 1 2 3 4 5 6 7 8 9; do [ $(" + carrier +
                  ") = 0 ] && exit 0; sleep 1; done; exit 1");
  host("ip link set " + tap() + " up");
  guest.output_of("for i in 1 2 3 4 5 6 7 8 9; do [ $(" + carrier +
                  ") = 1 ] && exit 0; sleep 1; done; exit 1");
  guest.output_of(std::string("ping -q -c 3 -W 20 ") + kHost4);
  EXPECT_EQ(guest.power_off(), 0);
  EXPECT_THAT(guest.vm().errors(), HasSubstr("the guest's link is down"));
  EXPECT_EQ(::if_nametoindex("vmtap0"), 0u);
}

TEST(NetLifeTest, AKilledVmLeavesNoTap) {
  GuestBoot boot;
  boot.extra = {"--net", "host-ip=10.77.0.1,netmask=255.255.255.0,mac=02:00:00:00:77:01"};
  {
    AgentGuest guest(boot);
    EXPECT_NE(::if_nametoindex("vmtap0"), 0u);
    guest.vm().signal(SIGKILL);
    guest.vm().wait_exit();
  }
  for (int i = 0; i < 1000 && ::if_nametoindex("vmtap0") != 0; ++i) {
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_EQ(::if_nametoindex("vmtap0"), 0u);
}

TEST(NetLifeTest, AGuestOutlivesItsTaps) {
  GuestBoot boot;
  boot.extra = {"--net", "tap-name=gone0,mac=02:00:00:00:77:03", "--net",
                "tap-name=gone1,mac=02:00:00:00:77:04,vhost-net"};
  AgentGuest guest(boot);
  const std::string cards = "modprobe virtio_net; cd /sys/class/net; ";
  EXPECT_EQ(guest.output_of(cards +
                            "for c in $(ls | grep -v -x lo); do ip link set $c up; done; "
                            "for i in 1 2 3 4 5 6 7 8 9; do "
                            "[ $(cat $(ls | grep -v -x lo | sed s,$,/carrier,) | sort -u) = 1 ] && "
                            "exit 0; sleep 1; done; exit 1"),
            "");
  host("ip link del gone0");
  host("ip link del gone1");
  guest.output_of(cards +
                  "for i in 1 2 3 4 5 6 7 8 9; do "
                  "[ $(cat $(ls | grep -v -x lo | sed s,$,/carrier,) | sort -u) = 0 ] && "
                  "exit 0; sleep 1; done; exit 1");
  // The driver may send and come and go all the same.
  guest.output_of(
      "for c in $(ls /sys/class/net | grep -v -x lo); do ip addr add 10.78.0.2/24 dev $c; "
      "ping -c 1 -W 1 -I $c 10.78.0.1; done; cd /sys/bus/virtio/drivers/virtio_net && "
      "for d in virtio*; do echo $d > unbind && echo $d > bind; done; dd if=/dev/vda "
      "of=/dev/null bs=1M count=4");
  EXPECT_EQ(guest.power_off(), 0);
  for (const char* tap : {"tap gone0: it is gone", "tap gone1: it is gone"}) {
    EXPECT_THAT(guest.vm().errors(), HasSubstr(tap));
  }
}

}  // namespace
}  // namespace crosvm::test
