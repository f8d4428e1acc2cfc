// Network cards as a stock Debian guest sees them, on taps of the host, moved by us or its kernel.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "agent_guest.h"
#include "net_guest.h"

namespace crosvm::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

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
};
/// Both ways to move packets; and with CROSVM_TEST_FULL with one pair of queues, too.
std::vector<Card> cards() {
  std::vector<Card> all = {{"WorkerOfFour", false, false, 4}, {"VhostOfFour", true, true, 4}};
  if (std::getenv("CROSVM_TEST_FULL") != nullptr) {
    all.insert(all.end(), {{"Worker", true, false, 1}, {"Vhost", false, true, 1}});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(Cards, NetTest, testing::ValuesIn(cards()),
                         [](const auto& info) { return info.param.name; });

TEST_P(NetTest, CarriesFilesHoweverTheCardIsSetAndComesBack) {
  const EchoServer server;
  AgentGuest guest(boot());
  host(std::string("ip -6 addr add ") + kHost6 + "/64 nodad dev " + tap());
  std::string card = set_up_card(guest);
  ping_host(guest);
  carry_file(guest, server, 16);

  const std::string features = guest.output_of("ethtool -k " + card);
  for (const char* feature : {"tx-checksumming: on", "tcp-segmentation-offload: on",
                              "tx-tcp6-segmentation: on", "scatter-gather: on"}) {
    EXPECT_THAT(features, HasSubstr(feature));
  }
  for (const char* toggle : {"tso off", "gso off", "tx off", "rx-gro-hw off", "gro off", "sg off",
                             "tx on sg on tso on gso on gro on rx-gro-hw on"}) {
    SCOPED_TRACE(toggle);
    guest.output_of("ethtool -K " + card + " " + toggle);
    carry_file(guest, server, 2);
  }

  const std::string mtu = guest.output_of("cat /sys/class/net/" + card + "/mtu");
  EXPECT_EQ(mtu, GetParam().made_by_us ? "1500\n" : "9000\n");
  guest.output_of("ip link set " + card + " mtu 1280");
  carry_file(guest, server, 2);
  guest.output_of("ip link set " + card + " mtu " + mtu);

  if (GetParam().pairs > 1) {
    EXPECT_THAT(guest.output_of("ethtool -l " + card),
                HasSubstr("Combined:\t" + std::to_string(GetParam().pairs)));
    for (int pairs : {1, GetParam().pairs}) {
      guest.output_of("ethtool -L " + card + " combined " + std::to_string(pairs));
      carry_file(guest, server, 4);
    }
  }
  guest.output_of("ip link set " + card + " promisc on && ip link add link " + card +
                  " name v5 type vlan id 5 && ip link del v5 && ip link set " + card +
                  " promisc off");
  ping_host(guest);

  // The driver comes and goes.
  for (int round = 0; round < 5; ++round) {
    guest.output_of(
        "cd /sys/bus/virtio/drivers/virtio_net && for d in virtio*; do echo $d > unbind && "
        "echo $d > bind; done");
    card = set_up_card(guest);
    ping_host(guest);
  }
  carry_file(guest, server, 4);

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
