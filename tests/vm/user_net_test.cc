// The network without privilege of --net user, in a stock Debian guest.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <string>

#include "agent_guest.h"
#include "own_network.h"

namespace crosvm::test {
namespace {

using testing::HasSubstr;

class UserNetVmTest : public OwnNetworkTest {
 protected:
  static void wait_for_address(AgentGuest& guest) {
    wait_until(guest,
               "ip -4 address show dev eth0 | grep -q 10.0.2.15 && "
               "ip -6 address show dev eth0 scope global | grep -q fd00:2: && "
               "! ip -6 address show dev eth0 | grep -q tentative");
  }
};

TEST_F(UserNetVmTest, NamesConnectionsDatagramsAndPingsInBothFamilies) {
  in_own_network([] {
    const EchoServers servers(7000);
    const NameServer names;
    AgentGuest guest(boot("user"));
    wait_for_address(guest);
    EXPECT_THAT(guest.output_of("cat /etc/resolv.conf"), HasSubstr("nameserver 10.0.2.3"));
    EXPECT_THAT(guest.output_of("getent hosts server.example"), HasSubstr("192.0.2.1"));
    for (const char* address : {"192.0.2.1", "2001:db8::1", "server.example"}) {
      talk_to(guest, address);
    }
    // A file there and back.
    in_bash(guest,
            "head -c 20000000 /dev/urandom > /tmp/sent; exec 3<>/dev/tcp/192.0.2.1/7000; "
            "(cat /tmp/sent >&3 &); "
            "[ \"$(head -c 20000000 <&3 | sha256sum)\" = \"$(sha256sum < /tmp/sent)\" ]");
    EXPECT_THAT(guest.output_of("busybox ping -c 2 -W 10 192.0.2.1"),
                HasSubstr("2 packets received"));
    EXPECT_THAT(guest.output_of("busybox ping -6 -c 2 -W 10 2001:db8::1"),
                HasSubstr("2 packets received"));
    EXPECT_EQ(guest.power_off(), 0);
  });
}

TEST_F(UserNetVmTest, LoopbackMetadataAndDeniedRangesAreRefused) {
  in_own_network([] {
    const EchoServers servers(7000);
    AgentGuest guest(boot("user,deny=[192.0.2.2,\"2001:db8::/32\"]"));
    wait_for_address(guest);
    for (const char* address :
         {"10.0.2.2", "169.254.169.254", "192.0.2.2", "fd00:2::2", "2001:db8::1"}) {
      const AgentResult tried =
          guest.shell(std::string("timeout 30 bash -c 'exec 3<>/dev/tcp/") + address + "/7000'");
      EXPECT_EQ(tried.status, 1) << address << ": " << tried.errors;
    }
    EXPECT_EQ(servers.connections(), 0);
    EXPECT_EQ(in_bash(guest, "exec 3<>/dev/tcp/192.0.2.1/7000; echo hello >&3; head -n 1 <&3"),
              "hello\n");
    EXPECT_EQ(guest.power_off(), 0);
  });
}

TEST_F(UserNetVmTest, ForwardsLeadToTheGuestAndNothingElseListens) {
  in_own_network([] {
    AgentGuest guest(boot("user,forward=[tcp:8080-:80]"));
    wait_for_address(guest);
    guest.output_of("socat TCP-LISTEN:80 EXEC:/bin/cat </dev/null >/dev/null 2>&1 &");
    wait_until(guest, "ss -Hltn | grep -q :80");
    EXPECT_THAT(listening(), HasSubstr("0100007F:1F90 00000000:0000 0A"));
    EXPECT_EQ(listeners(), 1U) << listening();
    EXPECT_EQ(answer_of(8080, SOCK_STREAM), "hello");
    EXPECT_EQ(guest.power_off(), 0);
    EXPECT_EQ(listeners(), 0U) << listening();
  });
}

TEST_F(UserNetVmTest, AKilledVmLeavesNothing) {
  in_own_network([] {
    AgentGuest guest(boot("user,forward=[tcp:8080-:80]"));
    EXPECT_EQ(listeners(), 1U) << listening();
    EXPECT_EQ(processes_of("crosvm-worker-net-user"), 1U);
    guest.vm().signal(SIGKILL);
    EXPECT_EQ(guest.vm().wait_exit(), 128 + SIGKILL);
    EXPECT_TRUE(comes_about([] { return processes_of("crosvm-worker-net-user") == 0; }));
    EXPECT_TRUE(comes_about([] { return listeners() == 0; })) << listening();
  });
}

}  // namespace
}  // namespace crosvm::test
