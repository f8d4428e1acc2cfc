// Socket devices of crosvm itself: what is said when one cannot be had, and that no socket file and
// no process stays behind.

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <filesystem>

#include "sandboxed_vm.h"

namespace crosvm::test {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class NativeVsockTest : public NativeWorkerTest {
 protected:
  std::string path(const std::string& name) { return scratch_.path() + "/" + name; }
  std::string ours() {
    return "cid=3,backend=user,connect=[1024:" + path("service") + "],listen=[22:" + path("ssh") +
           ",23/seqpacket:" + path("messages") + "]";
  }
  bool goes(const std::string& name) {
    for (int tries = 0; tries < 1000 && std::filesystem::exists(path(name)); ++tries) {
      ::usleep(10'000);
    }
    return !std::filesystem::exists(path(name));
  }
  bool comes(const std::string& name) {
    for (int tries = 0; tries < 1000 && !std::filesystem::exists(path(name)); ++tries) {
      ::usleep(10'000);
    }
    return std::filesystem::exists(path(name));
  }
  Fd connect(const std::string& name) {
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path(name).c_str(), sizeof(address.sun_path) - 1);
    const int done =
        ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    return done == 0 ? std::move(fd) : Fd();
  }
};

TEST_F(NativeVsockTest, SocketFilesGoWithTheVmHoweverItEnds) {
  for (const int signal : {SIGTERM, SIGKILL}) {
    VmProcess vm(arguments({"--vsock", ours()}));
    start(vm);
    EXPECT_NE(worker("vsock"), kNobody);
    EXPECT_TRUE(std::filesystem::exists(path("ssh")));
    EXPECT_TRUE(std::filesystem::exists(path("messages")));
    EXPECT_TRUE(connect("ssh"));  // and waits for a driver
    vm.signal(signal);
    EXPECT_TRUE(vm.wait_exit(seconds(30)).has_value());
    EXPECT_TRUE(goes("ssh"));
    EXPECT_TRUE(goes("messages"));
  }
}

TEST_F(NativeVsockTest, SocketFilesGoWithTheGuestTheDeviceAndTheSpawner) {
  const auto all_go = [&] { return goes("ssh") && goes("messages") && ends_soon(all_); };
  {
    std::vector<std::string> flags = arguments({"--vsock", ours()});
    flags.back() = CROSVM_PAYLOADS "/payload_reset";
    VmProcess vm(flags);
    EXPECT_EQ(vm.wait_exit(seconds(60)), 32) << vm.errors();
    EXPECT_TRUE(all_go());
  }
  {
    VmProcess vm(arguments({"--vsock", ours()}));
    start(vm);
    ::kill(worker("vsock"), SIGKILL);
    EXPECT_EQ(vm.wait_exit(seconds(30)), 33);
    EXPECT_TRUE(all_go());
  }
  VmProcess vm(arguments({"--vsock", ours()}));
  start(vm);
  ::kill(spawner_, SIGKILL);
  EXPECT_TRUE(vm.wait_exit(seconds(30)).has_value());
  EXPECT_TRUE(all_go());
}

TEST_F(NativeVsockTest, WithoutASandboxTheyGoToo) {
  VmProcess vm(arguments({"--vsock", ours(), "--disable-sandbox"}));
  ASSERT_TRUE(vm.wait_for("!", seconds(30))) << vm.errors();
  EXPECT_TRUE(std::filesystem::exists(path("ssh")));
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  EXPECT_THAT(scratch_.entries(), Not(Contains("ssh")));
}

TEST_F(NativeVsockTest, WhatCannotBeHadIsSaid) {
  EXPECT_THAT(refusal({"--vsock", "cid=3,device=" + path("none")}),
              AllOf(HasSubstr("vsock: "), HasSubstr("No such file"),
                    HasSubstr("modprobe vhost_vsock"), HasSubstr("backend=user")));
  EXPECT_THAT(refusal({"--vsock", "cid=3,device=/dev/null"}),
              HasSubstr("/dev/null is no vhost-vsock device"));
  const std::string file = made_file("taken");
  EXPECT_THAT(refusal({"--vsock", "cid=3,backend=user,listen=[22:" + file + "]"}),
              AllOf(HasSubstr("listen"), HasSubstr(file), HasSubstr("it is no socket")));
  EXPECT_TRUE(std::filesystem::exists(file));
  EXPECT_THAT(refusal({"--vsock", "cid=3,backend=user,listen=[22:" + path("a") +
                                      ",23:" + path("no/such/place") + "]"}),
              AllOf(HasSubstr("no/such/place"), HasSubstr("make its folder first")));
  EXPECT_THAT(refusal({"--vsock",
                       "cid=3,backend=user,listen=[22:" + path("a") + ",23:" + path("./a") + "]"}),
              AllOf(HasSubstr(path("./a")), HasSubstr("which is given too")));
  EXPECT_THAT(scratch_.entries(), Not(Contains("a")));
  EXPECT_THAT(refusal({"--vsock", "cid=3,backend=user,connect=[1:" + std::string(200, 'x') + "]"}),
              HasSubstr("use a shorter one"));
}

TEST_F(NativeVsockTest, ADeviceOnItsOwnLeavesNothingBehind) {
  for (const int signal : {SIGTERM, SIGINT, SIGKILL}) {
    VmProcess device({"--no-syslog", "device", "vsock", "--cid", "3", "--connect",
                      "1024:" + path("service"), "--listen", "22:" + path("ssh"), "--socket-path",
                      path("frontend")});
    ASSERT_TRUE(comes("frontend")) << device.errors();
    EXPECT_TRUE(connect("ssh"));
    device.signal(signal);
    EXPECT_EQ(device.wait_exit(seconds(30)).value_or(-1), signal == SIGKILL ? 137 : 0);
    EXPECT_TRUE(goes("ssh"));
    std::filesystem::remove(path("frontend"));
  }
}

TEST_F(NativeVsockTest, NothingListensForADeviceWhoseProcessHasDied) {
  VmProcess devices({"--no-syslog", "devices", "--vsock",
                     "vhost=" + path("frontend") + "," + ours(), "--block",
                     "vhost=" + path("other") + "," + path("disk")});
  ASSERT_TRUE(comes("frontend") && comes("other")) << devices.errors();
  const Fd frontend = connect("frontend");
  ASSERT_TRUE(frontend);
  ASSERT_TRUE(goes("frontend"));
  EXPECT_TRUE(connect("ssh"));
  for (const pid_t pid : children_of(children_of(devices.pid()).front())) {
    if (name_of(pid) == "vsock-0") ::kill(pid, SIGKILL);
  }
  EXPECT_TRUE(goes("ssh"));
  EXPECT_TRUE(goes("messages"));
  EXPECT_TRUE(std::filesystem::exists(path("other"))) << "the disk's front-end may still come";
  EXPECT_TRUE(lives(devices.pid()));
}

TEST_F(NativeVsockTest, OneOfSeveralDevices) {
  VmProcess devices(
      {"--no-syslog", "devices", "--vsock", "vhost=" + path("frontend") + "," + ours()});
  ASSERT_TRUE(comes("frontend")) << devices.errors();
  // Its process begins when its front-end comes, and ends when that goes.
  connect("frontend");
  EXPECT_TRUE(devices.wait_exit(seconds(60)).has_value());
  EXPECT_THAT(scratch_.entries(), AllOf(Not(Contains("ssh")), Not(Contains("frontend"))));
}

}  // namespace
}  // namespace crosvm::test
