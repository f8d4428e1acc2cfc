// Network cards under load for long: every kind of traffic through cards of every kind, and drivers
// that come and go. A sample in CI; all of it with CROSVM_TEST_FULL, which ./dev soak net sets.

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "net_guest.h"

namespace crosvm::test {
namespace {

bool is_full() { return std::getenv("CROSVM_TEST_FULL") != nullptr; }

enum class Path { kWorker, kVhost, kUser };

struct SoakCard {
  const char* name;
  Path path;
  int pairs;
};

std::vector<SoakCard> cards() {
  if (!is_full()) return {{"VhostOfTwo", Path::kVhost, 2}};
  return {{"Worker", Path::kWorker, 1},
          {"WorkerOfFour", Path::kWorker, 4},
          {"Vhost", Path::kVhost, 1},
          {"VhostOfFour", Path::kVhost, 4},
          {"User", Path::kUser, 1}};
}

/// One run of iperf3.
struct Traffic {
  bool udp;
  int streams;
  bool to_guest;
  bool v6;

  std::string client(int seconds) const {
    return std::string("iperf3 -f m -c ") + (v6 ? kHost6 : kHost4) + " -t " +
           std::to_string(seconds) + " -P " + std::to_string(streams) +
           (udp ? (streams > 1 ? " -u -b 4M" : " -u -b 20M") : "") + (to_guest ? " -R" : "");
  }
};

std::vector<Traffic> traffic() {
  if (!is_full()) return {{false, 8, true, true}, {true, 1, false, false}};
  std::vector<Traffic> all;
  for (const bool udp : {false, true}) {
    for (const int streams : {1, 8}) {
      for (const bool to_guest : {false, true}) {
        for (const bool v6 : {false, true}) all.push_back({udp, streams, to_guest, v6});
      }
    }
  }
  return all;
}

class NetSoakTest : public testing::TestWithParam<SoakCard> {
 protected:
  static constexpr const char* kTap = "soaktap";
  /// Of a tap, of the user network.
  static int most_mtu() { return is_user() ? 65520 : 65521; }

  static bool is_user() { return GetParam().path == Path::kUser; }

  void SetUp() override {
    if (is_user()) {
      // Addresses of the host that are no loopback's: those are denied to guests.
      host(std::string("ip addr add ") + kHost4 + "/32 dev lo && ip -6 addr add " + kHost6 +
           "/128 nodad dev lo && echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range");
    } else {
      host(std::string("ip tuntap add mode tap name ") + kTap + " vnet_hdr" +
           (GetParam().pairs > 1 ? " multi_queue" : ""));
      host(std::string("ip addr add ") + kHost4 + "/24 dev " + kTap);
      host("ip link set " + std::string(kTap) + " up mtu " + std::to_string(most_mtu()));
    }
    host("iperf3 -s -D -I " + pid_file());
  }
  void TearDown() override {
    host("kill $(tr -d '\\0' < " + pid_file() + ")");
    if (is_user()) {
      host(std::string("ip addr del ") + kHost4 + "/32 dev lo && ip -6 addr del " + kHost6 +
           "/128 dev lo");
    } else {
      host(std::string("ip link del ") + kTap);
    }
  }
  std::string pid_file() const { return scratch_.path() + "/iperf3.pid"; }
  static GuestBoot boot() {
    GuestBoot boot{.vcpus = GetParam().pairs, .memory_mib = 768};
    const std::string mac = ",mac=02:00:00:00:77:09";
    boot.extra = {"--net", is_user() ? "user,mtu=" + std::to_string(most_mtu()) + mac
                                     : std::string("tap-name=") + kTap + mac +
                                           ",vq-pairs=" + std::to_string(GetParam().pairs) +
                                           (GetParam().path == Path::kVhost ? ",vhost-net" : "")};
    return boot;
  }
  /// What gives a guest's $card the addresses of IPv4, or of IPv6.
  static std::string addresses4() {
    return is_user() ? "ip addr replace 10.0.2.15/24 dev $card; "
                       "ip route replace default via 10.0.2.2 dev $card"
                     : "ip addr replace 10.77.0.2/24 dev $card";
  }
  static std::string addresses6() {
    return is_user() ? "ip -6 addr replace fd00:2::15/64 nodad dev $card; "
                       "ip -6 route replace default via fd00:2::2 dev $card"
                     : "ip -6 addr replace fd77::2/64 nodad dev $card";
  }
  static void run_on(AgentGuest& guest, const std::string& card, const std::string& commands) {
    guest.output_of("set -e; card=" + card + "; " + commands);
  }
  static std::string up(AgentGuest& guest) {
    if (!is_user()) return set_up_card(guest);
    const std::string card = name_of_card(guest);
    run_on(guest, card, "ip link set $card up; " + addresses4() + "; " + addresses6());
    return card;
  }
  /// What is below 1280 takes the addresses of IPv6 away.
  static void set_mtu(AgentGuest& guest, const std::string& card, int mtu) {
    const std::string command = " mtu " + std::to_string(mtu);
    if (!is_user()) host("ip link set " + std::string(kTap) + command);
    run_on(guest, card, "ip link set $card" + command);
    if (mtu < 1280) return;
    if (!is_user()) host(std::string("ip -6 addr replace ") + kHost6 + "/64 nodad dev " + kTap);
    run_on(guest, card, addresses6());
  }
  /// Something arrives, and iperf3 finds nothing wrong.
  static void carry(AgentGuest& guest, const Traffic& traffic) {
    const std::string client = traffic.client(is_full() ? 3 : 1);
    SCOPED_TRACE(client);
    guest.output_of("timeout 120 " + client +
                    " > /tmp/said 2>&1 || { cat /tmp/said; exit 1; }; awk '/receiver/ { for (i = "
                    "2; i <= NF; ++i) if ($i == \"Mbits/sec\") rate = $(i - 1) } END { exit !(rate "
                    "> 0) }' /tmp/said || { cat /tmp/said; exit 2; }");
  }

 private:
  ScratchDirectory scratch_;
};
INSTANTIATE_TEST_SUITE_P(Cards, NetSoakTest, testing::ValuesIn(cards()),
                         [](const auto& info) { return info.param.name; });

TEST_P(NetSoakTest, TrafficOfAllKindsAndDriversThatComeAndGo) {
  const EchoServer server;
  AgentGuest guest(boot());
  const std::string card = up(guest);
  const std::vector<int> mtus =
      is_full() ? std::vector{1280, 1500, 9000, most_mtu()} : std::vector{most_mtu()};
  for (const int mtu : mtus) {
    SCOPED_TRACE(mtu);
    set_mtu(guest, card, mtu);
    ping_host(guest);
    for (const Traffic& each : traffic()) carry(guest, each);
    carry_file(guest, server, !is_full() ? 8 : is_user() ? 16 : 128);
  }
  // Of IPv4 alone: nothing smaller is an MTU, and TCP finds no room.
  set_mtu(guest, card, 68);
  for (const char* bytes : {"0", "40"}) {
    guest.output_of(std::string("ping -q -c 5 -i 0.2 -W 20 -s ") + bytes + " " + kHost4);
  }
  set_mtu(guest, card, 1500);

  const std::string cycles = is_full() ? "1000" : "6";
  const AgentResult result = guest.shell(
      "set -e\n"
      "cd /sys/bus/virtio/drivers/virtio_net; device=$(basename virtio*)\n"
      "for i in $(seq " +
          cycles +
          "); do\n"
          "  ping -q -f -c 100000 " +
          kHost4 +
          " > /dev/null 2>&1 & load=$!\n"
          "  echo $device > unbind; echo $device > bind\n"
          "  kill $load 2>/dev/null || true; wait $load || true\n"
          "  until card=$(ls /sys/bus/virtio/devices/$device/net); do sleep 0.01; done\n"
          "  ip link set $card up; " +
          addresses4() +
          "\n"
          "  ping -q -c 1 -W 20 " +
          kHost4 + " > /dev/null\ndone\necho done",
      std::chrono::minutes(is_full() ? 120 : 5));
  EXPECT_EQ(result.status, 0) << result.errors;
  EXPECT_EQ(result.output, "done\n");
  run_on(guest, card, addresses6());
  carry_file(guest, server, 4);
  EXPECT_EQ(guest.power_off(), 0) << guest.vm().errors();
}

}  // namespace
}  // namespace crosvm::test
