// Network cards of VMs with a kernel of a few instructions, and served to the front-end of a test,
// on taps in a network namespace of the test's own.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <linux/virtio_ids.h>
#include <signal.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "base/unix_address.h"
#include "devices/net/net_abi.h"
#include "devices/net/net_namespace.h"
#include "sandboxed_vm.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/rig/rig.h"

namespace crosvm::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kNewTap = "host-ip=10.77.0.1,netmask=255.255.255.0,mac=02:00:00:00:77:01";

bool comes(const std::function<bool()>& what) {
  for (int tries = 0; tries < 3000; ++tries) {
    if (what()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

bool is_there(const char* interface) { return ::if_nametoindex(interface) != 0; }

class NativeNetTest : public NativeWorkerTest {
 protected:
  void SetUp() override {
    if (!namespace_.missing().empty()) GTEST_SKIP() << namespace_.missing();
    NativeWorkerTest::SetUp();
  }
  TestNamespace namespace_;
};

TEST_F(NativeNetTest, ATapIsMadeAndGoneHoweverTheVmEnds) {
  for (const int number : {SIGTERM, SIGKILL}) {
    for (const bool sandbox : {true, false}) {
      SCOPED_TRACE(testing::Message() << number << " " << sandbox);
      std::vector<std::string> flags = {"--net", kNewTap};
      if (!sandbox) flags.emplace_back("--disable-sandbox");
      VmProcess vm(arguments(flags));
      if (sandbox) {
        start(vm);
        EXPECT_EQ(status_of(worker("net0"))["Seccomp"], "2");
        EXPECT_EQ(namespace_of(worker("net0"), "net"), namespace_of(spawner_, "net"));
        EXPECT_NE(namespace_of(worker("net0"), "net"), namespace_of(vm.pid(), "net"));
      } else {
        ASSERT_TRUE(vm.wait_for("!", seconds(30))) << vm.errors();
      }
      EXPECT_TRUE(interface_is_up("vmtap0"));
      vm.signal(number);
      EXPECT_TRUE(vm.wait_exit(seconds(30)));
      EXPECT_TRUE(comes([] { return !is_there("vmtap0"); }));
      (void)::unlink(socket_.c_str());
    }
  }
}

TEST_F(NativeNetTest, ATapGoesWithTheProcessOfItsCard) {
  VmProcess vm(arguments({"--net", kNewTap}));
  start(vm);
  ::kill(worker("net0"), SIGKILL);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 33);
  EXPECT_THAT(vm.errors(), HasSubstr("net0: its process was killed by SIGKILL"));
  EXPECT_TRUE(comes([] { return !is_there("vmtap0"); }));
}

TEST_F(NativeNetTest, ATapOutlivesTheProcessOfACardThatGetsAnother) {
  for (const char* network : {kNewTap, "tap-name=vmtap0,vq-pairs=2"}) {
    VmProcess vm(arguments({"--net", network, "-c", "2", "--restart-devices=net"}));
    start(vm);
    for (pid_t former = worker("net0"); const int time : {1, 2}) {
      ::kill(former, SIGKILL);
      former = successor("net0", former);
      ASSERT_NE(former, kNobody) << time << ": " << vm.errors();
      all_.push_back(former);
      EXPECT_TRUE(interface_is_up("vmtap0"));
    }
    vm.signal(SIGTERM);
    EXPECT_EQ(vm.wait_exit(seconds(30)), 0) << vm.errors();
    EXPECT_TRUE(ends_soon(all_));
    EXPECT_TRUE(comes([] { return !is_there("vmtap0"); }));
  }
}

TEST_F(NativeNetTest, ATapGoesWithTheSpawner) {
  VmProcess vm(arguments({"--net", kNewTap}));
  start(vm);
  ::kill(spawner_, SIGKILL);
  EXPECT_TRUE(vm.wait_exit(seconds(30)).has_value());
  EXPECT_TRUE(ends_soon(all_));
  EXPECT_TRUE(comes([] { return !is_there("vmtap0"); }));
}

TEST_F(NativeNetTest, ATapGoesWhenTheGuestEnds) {
  for (const bool sandbox : {true, false}) {
    std::vector<std::string> flags = arguments({"--net", kNewTap, "--net", "tap-name=mine"});
    flags.back() = CROSVM_PAYLOADS "/payload_reset";
    if (!sandbox) flags.insert(flags.end() - 1, "--disable-sandbox");
    VmProcess vm(flags);
    EXPECT_EQ(vm.wait_exit(seconds(60)), 32) << vm.errors();
    EXPECT_TRUE(comes([] { return !is_there("vmtap0") && !is_there("mine"); }));
  }
}

TEST_F(NativeNetTest, AStartThatFailsLeavesNoTap) {
  const std::string socket = scratch_.path() + "/vsock-socket";
  const std::string vsock = "cid=3,backend=user,listen=[22:" + socket + "]";
  for (const std::vector<std::string>& bad :
       {std::vector<std::string>{"--net", "tap-name=lo"},
        {"--block", scratch_.path() + "/none"},
        {"--vhost-user", "net,socket=" + scratch_.path() + "/none"}}) {
    for (const bool sandbox : {true, false}) {
      SCOPED_TRACE(testing::Message() << bad.back() << " " << sandbox);
      std::vector<std::string> flags = {"--net", kNewTap, "--net", "tap-name=mine,vq-pairs=2"};
      flags.insert(flags.end(), {"--vsock", vsock});
      flags.insert(flags.end(), bad.begin(), bad.end());
      if (!sandbox) flags.emplace_back("--disable-sandbox");
      refusal(flags);
      EXPECT_TRUE(comes([] { return !is_there("vmtap0") && !is_there("mine"); }));
      EXPECT_FALSE(std::filesystem::exists(socket));
    }
  }
}

TEST_F(NativeNetTest, ATapOfOthersStaysWithoutAnOwner) {
  {
    const Fd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    ifreq request{};
    std::strncpy(request.ifr_name, "theirs", IFNAMSIZ - 1);
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    ASSERT_EQ(::ioctl(tun.get(), TUNSETIFF, &request), 0);
    ASSERT_EQ(::ioctl(tun.get(), TUNSETPERSIST, 1UL), 0);
  }
  for (const int number : {SIGTERM, SIGKILL}) {
    VmProcess vm(arguments({"--net", "tap-name=theirs"}));  // the former VM has let go of it
    start(vm);
    vm.signal(number);
    EXPECT_TRUE(vm.wait_exit(seconds(30)).has_value());
    EXPECT_TRUE(ends_soon(all_));
    EXPECT_TRUE(is_there("theirs"));
    (void)::unlink(socket_.c_str());
  }
  EXPECT_TRUE(delete_interface("theirs"));
}

TEST_F(NativeNetTest, OldFlagsMakeCardsInTheirOrder) {
  VmProcess vm(
      arguments({"--tap-name", "old", "--host_ip", "10.77.0.1", "--netmask", "255.255.255.0",
                 "--mac", "02:00:00:00:77:01", "--net", "tap-name=new,mac=02:00:00:00:00:aa"}));
  start(vm);
  EXPECT_THAT(vm.errors(), AllOf(HasSubstr("net0: on tap new, MAC address 02:00:00:00:00:aa"),
                                 HasSubstr("net1: on tap old"), HasSubstr("net2: on tap vmtap0")));
}

TEST_F(NativeNetTest, TheGuestsAddressIsTheSameEachTime) {
  std::array<std::string, 2> said;
  for (std::string& each : said) {
    VmProcess vm(arguments({"--name", "stable", "--net", kNewTap}));
    start(vm);
    const size_t at = vm.errors().find("MAC address ");
    ASSERT_NE(at, std::string::npos);
    each = vm.errors().substr(at, 29);
    vm.signal(SIGTERM);
    EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  }
  EXPECT_EQ(said[0], said[1]);
}

TEST_F(NativeNetTest, SaysWhatIsWrongWithACard) {
  EXPECT_THAT(refusal({"--net", "tap-name=a-name-that-is-too-long"}),
              AllOf(HasSubstr("net0: "), HasSubstr("a-name-that-is-too-long")));
  EXPECT_THAT(refusal({"--net", "tap-fd=77"}),
              AllOf(HasSubstr("net0: tap-fd=77: "), HasSubstr("no such descriptor"),
                    HasSubstr("tap-name")));
  EXPECT_THAT(refusal({"--net", "tap-name=lo"}), HasSubstr("no tap"));
  EXPECT_THAT(refusal({"--host-ip", "10.0.0.1"}), HasSubstr("--netmask"));
  EXPECT_THAT(refusal({"--net", "tap-name=a,vhost-net=[device=/dev/null]"}),
              AllOf(HasSubstr("/dev/null"), HasSubstr("give /dev/vhost-net")));
  EXPECT_THAT(refusal({"--net", "tap-name=a,vhost-net=[device=/nowhere]"}),
              AllOf(HasSubstr("/nowhere"), HasSubstr("vhost_net")));
  EXPECT_FALSE(is_there("a"));
}

TEST_F(NativeNetTest, ServesCardsToFrontends) {
  const std::string one = scratch_.path() + "/one.sock";
  const std::string two = scratch_.path() + "/two.sock";
  VmProcess process({"--no-syslog", "device", "net", "--tap-name", one + ",mine", "--device",
                     two + ",10.77.0.1,255.255.255.0,02:00:00:00:77:01"});
  {
    LoopThread thread;
    std::vector<Rig> rigs;
    for (const std::string& path : {one, two}) {
      auto address = UnixAddress::of(path);
      ASSERT_TRUE(address);
      Fd socket;
      ASSERT_TRUE(comes([&] {
        socket = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        return ::connect(socket.get(), address->get(), address->size()) == 0;
      })) << process.errors();
      VhostUserOptions options;
      options.name = "test";
      options.device_type = VIRTIO_ID_NET;
      options.max_queue_size = 64;
      auto backend = VhostUserBackend::create(thread.loop(), std::move(socket), std::move(options));
      ASSERT_TRUE(backend.has_value()) << backend.error().what();
      rigs.push_back(Rig::attach(std::move(*backend)));
    }
    for (size_t i = 0; i < rigs.size(); ++i) {
      const PacketTap host(i == 0 ? "mine" : "vmtap0");
      rigs[i].driver(1).send({readable(NetHeader{}), readable(PacketTap::packet(7))});
      EXPECT_TRUE(rigs[i].driver(1).wait_used().arrived);
      EXPECT_EQ(host.next(), PacketTap::packet(7));
    }
  }
  EXPECT_EQ(process.wait_exit(seconds(60)), 0) << process.errors();
  EXPECT_FALSE(is_there("mine"));
  EXPECT_FALSE(is_there("vmtap0"));
}

TEST_F(NativeNetTest, ServesAJailedCard) {
  const std::string path = scratch_.path() + "/card.sock";
  VmProcess process({"--no-syslog", "devices", "--net", "vhost=" + path + ",tap-name=mine"});
  ASSERT_TRUE(comes([&] { return std::filesystem::exists(path); })) << process.errors();
  EXPECT_TRUE(is_there("mine"));
  process.signal(SIGTERM);
  EXPECT_EQ(process.wait_exit(seconds(60)), 0) << process.errors();
  EXPECT_TRUE(comes([] { return !is_there("mine"); }));
}

}  // namespace
}  // namespace crosvm::test
