// passt behind a card, in a stock Debian guest: Debian 12's by its stream of frames, Debian 13's by
// vhost-user.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent_guest.h"
#include "other_program.h"
#include "own_network.h"

namespace crosvm::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// passt at a socket, in the network of the thread that starts it.
class Passt {
 public:
  /// As this machine's Debian has it.
  explicit Passt(const std::string& socket) : Passt("passt", socket, {}) {}
  /// Debian 13's.
  static std::unique_ptr<Passt> by_vhost_user(const std::string& socket) {
    const char* program = std::getenv("CROSVM_PASST");
    if (program == nullptr) ADD_FAILURE() << "CROSVM_PASST names Debian 13's: ./dev vm sets it";
    std::vector<std::string> more = {"--vhost-user", "--repair-path", "none",   "--tcp-ports",
                                     "8080:80",      "--udp-ports",   "8081:81"};
    return std::unique_ptr<Passt>(
        new Passt(program != nullptr ? program : "passt", socket, std::move(more)));
  }

 private:
  Passt(const std::string& program, const std::string& socket, std::vector<std::string> more)
      : program_(arguments(program, socket, std::move(more))) {
    EXPECT_TRUE(comes_about([&] { return listens_at(socket); })) << socket;
  }
  static std::vector<std::string> arguments(const std::string& program, const std::string& socket,
                                            std::vector<std::string> more) {
    std::vector<std::string> all = {program, "--foreground", "--quiet", "--runas",
                                    "0",     "--socket",     socket};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  OtherProgram program_;
};

class PasstVmTest : public OwnNetworkTest {
 protected:
  /// passt gives the guest the addresses of the interface that leads out.
  static void make_way_out() {
    ASSERT_EQ(std::system("ip tuntap add mode tap name out && ip link set out up && "
                          "ip address add 198.51.100.2/24 dev out && "
                          "ip route add default via 198.51.100.1 dev out && "
                          "ip address add 2001:db8:1::2/64 dev out nodad && "
                          "ip route add default via fe80::1 dev out"),
              0);
  }
  static void wait_for_address(AgentGuest& guest) {
    wait_until(guest, "ip -4 address show dev eth0 | grep -q 198.51.100.2");
  }
  static void wait_for_carrier(AgentGuest& guest, const std::string& state) {
    wait_until(guest, "[ \"$(cat /sys/class/net/eth0/carrier)\" = " + state + " ]");
  }
  /// passt has gone, and comes back.
  void leave(std::unique_ptr<Passt>& passt) const {
    passt.reset();
    ::unlink(socket_.c_str());
  }

  const std::string socket_ = scratch_.path() + "/passt";
};

TEST_F(PasstVmTest, MayGoAndComeBack) {
  in_own_network([this] {
    make_way_out();
    const EchoServers servers(7000);
    auto passt = std::make_unique<Passt>(socket_);
    AgentGuest guest(boot("passt,mtu=1400,socket=" + socket_));
    wait_for_address(guest);
    EXPECT_EQ(guest.output_of("cat /sys/class/net/eth0/mtu"), "1400\n");
    talk_to(guest, "192.0.2.1");
    leave(passt);
    wait_for_carrier(guest, "0");
    passt = std::make_unique<Passt>(socket_);
    wait_for_carrier(guest, "1");
    talk_to(guest, "192.0.2.1");
    EXPECT_EQ(guest.power_off(), 0);
    EXPECT_THAT(guest.vm().errors(), AllOf(HasSubstr("; the link is down"),
                                           HasSubstr("connected again; the link is up")));
  });
}

/// The whole of it by vhost-user, before passt is killed and after.
TEST_F(PasstVmTest, ByVhostUserMayGoAndComeBack) {
  in_own_network([this] {
    make_way_out();
    const EchoServers servers(7000);
    const NameServer names;
    auto passt = Passt::by_vhost_user(socket_);
    AgentGuest guest(boot("passt,vhost-user,mtu=1400,mac=02:00:00:00:00:07,socket=" + socket_));
    wait_for_address(guest);
    EXPECT_EQ(guest.output_of("cat /sys/class/net/eth0/mtu"), "1400\n");
    EXPECT_EQ(guest.output_of("cat /sys/class/net/eth0/address"), "02:00:00:00:00:07\n");
    EXPECT_THAT(guest.output_of("cat /etc/resolv.conf"), HasSubstr("nameserver 192.0.2.1"));
    EXPECT_THAT(guest.output_of("getent hosts server.example"), HasSubstr("192.0.2.1"));
    wait_until(guest, "ip -6 address show dev eth0 scope global -tentative | grep -q 2001:db8:1:");
    guest.output_of(
        "(socat TCP-LISTEN:80,fork EXEC:/bin/cat & socat UDP-LISTEN:81,fork EXEC:/bin/cat &) "
        "</dev/null >/dev/null 2>&1");
    wait_until(guest, "ss -Hltn | grep -q :80 && ss -Hlun | grep -q :81");
    const auto all_works = [&guest] {
      for (const char* address : {"192.0.2.1", "2001:db8::1", "server.example"}) {
        talk_to(guest, address);
      }
      EXPECT_THAT(guest.output_of("busybox ping -c 2 -W 10 192.0.2.1"),
                  HasSubstr("2 packets received"));
      EXPECT_THAT(guest.output_of("busybox ping -6 -c 2 -W 10 2001:db8::1"),
                  HasSubstr("2 packets received"));
      EXPECT_EQ(answer_of(8080, SOCK_STREAM), "hello");
      EXPECT_EQ(answer_of(8081, SOCK_DGRAM), "hello");
    };
    all_works();
    // A file there and back, piece by piece: where more comes than a guest takes, kernels may keep
    // the window shut of a socket that passt peeks at, and the connection stalls.
    in_bash(guest,
            "dd if=/dev/urandom of=/tmp/sent bs=32k count=80 2>/dev/null; "
            "exec 3<>/dev/tcp/192.0.2.1/7000; "
            "for i in $(seq 0 79); do "
            "dd if=/tmp/sent bs=32k skip=$i count=1 2>/dev/null >&3; head -c 32768 <&3; done "
            "> /tmp/came; [ \"$(sha256sum < /tmp/sent)\" = \"$(sha256sum < /tmp/came)\" ]");
    leave(passt);
    wait_for_carrier(guest, "0");
    passt = Passt::by_vhost_user(socket_);
    wait_for_carrier(guest, "1");
    all_works();
    EXPECT_EQ(guest.power_off(), 0);
    EXPECT_THAT(guest.vm().errors(), AllOf(HasSubstr("passt has gone; the link is down"),
                                           HasSubstr("connected again; the link is up")));
  });
}

/// Without a card of ours before it: a VM ends with the back-ends of --vhost-user.
TEST_F(PasstVmTest, AsAnyBackEndOfVhostUserItTakesTheVmWithIt) {
  in_own_network([this] {
    make_way_out();
    const EchoServers servers(7000);
    auto passt = Passt::by_vhost_user(socket_);
    AgentGuest guest({.extra = {"--vhost-user", "net,socket=" + socket_}});
    wait_for_address(guest);
    talk_to(guest, "192.0.2.1");
    leave(passt);
    EXPECT_EQ(guest.vm().wait_exit(), 33);
    EXPECT_THAT(guest.vm().errors(), HasSubstr("the back-end at " + socket_ + " has gone"));
  });
}

}  // namespace
}  // namespace crosvm::test
