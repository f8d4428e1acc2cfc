// How a VM ends, with kernels of a few instructions: on any /dev/kvm, also one that cannot run a
// stock kernel.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "control/socket.h"
#include "vm_process.h"

namespace crosvm::test {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string payload(const char* name) { return std::string(CROSVM_PAYLOADS "/payload_") + name; }

/// `run` of a payload that reports by the debug console on stdout.
std::vector<std::string> run(const char* name, std::vector<std::string> flags = {}) {
  std::vector<std::string> arguments = {"--no-syslog", "--extended-status", "run"};
  arguments.insert(arguments.end(), {"--serial", "type=stdout,hardware=debugcon"});
  arguments.insert(arguments.end(), {"--serial", "type=sink,num=1", "-m", "64"});
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  arguments.push_back(payload(name));
  return arguments;
}

class NativeLifeTest : public testing::Test {
 protected:
  void SetUp() override {
    Fd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm) GTEST_SKIP() << "/dev/kvm does not open: " << std::strerror(errno);
  }

  int client(const std::vector<std::string>& arguments) {
    VmProcess process(arguments);
    int status = process.wait_exit(seconds(30)).value_or(-1);
    client_output_ = process.output() + process.errors();
    return status;
  }

  ScratchDirectory scratch_;
  std::string socket_ = scratch_.path() + "/vm.sock";
  std::string client_output_;
};

TEST_F(NativeLifeTest, ARequestForResetIsStatus32) {
  VmProcess vm(run("reset"));
  EXPECT_EQ(vm.wait_exit(seconds(30)), 32);
  EXPECT_EQ(vm.output(), "!");
  EXPECT_THAT(vm.errors(), HasSubstr("exiting with reset"));
}

TEST_F(NativeLifeTest, WithoutExtendedStatusAResetIsZero) {
  auto arguments = run("reset");
  std::erase(arguments, "--extended-status");
  VmProcess vm(arguments);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
}

/// Whose user's queue of signals is full can be sent no real-time signal.
TEST_F(NativeLifeTest, ASignalEndsTheVmAlthoughNoMoreCanBeQueued) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_SIGPENDING, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_SIGPENDING, &none), 0);
  VmProcess vm(run("spin"));
  EXPECT_EQ(::setrlimit(RLIMIT_SIGPENDING, &before), 0);
  ASSERT_TRUE(vm.wait_for("!", seconds(30)));
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0) << vm.errors();
}

TEST_F(NativeLifeTest, ATripleFaultIsAStop) {
  VmProcess vm(run("triple_fault"));
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  EXPECT_EQ(vm.output(), "!");
  EXPECT_THAT(vm.errors(), HasSubstr("triple fault; rip=0x20000f"));
}

TEST_F(NativeLifeTest, StopEndsTheVmAndTheSocketGoes) {
  VmProcess vm(run("spin", {"-c", "4", "-s", socket_}));
  ASSERT_TRUE(vm.wait_for("!", seconds(30)));
  EXPECT_EQ(client({"stop", socket_}), 0);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  EXPECT_THAT(scratch_.entries(), IsEmpty());
}

TEST_F(NativeLifeTest, EachEndingSignalIsAnOrderlyStop) {
  for (int number : {SIGINT, SIGTERM, SIGHUP}) {
    VmProcess vm(run("spin", {"-s", socket_}));
    ASSERT_TRUE(vm.wait_for("!", seconds(30)));
    vm.signal(number);
    EXPECT_EQ(vm.wait_exit(seconds(30)), 0) << number;
    EXPECT_THAT(scratch_.entries(), IsEmpty()) << number;
  }
}

TEST_F(NativeLifeTest, ASignalThatOurParentIgnoredStaysIgnored) {  // nohup crosvm run …
  ::signal(SIGHUP, SIG_IGN);
  VmProcess vm(run("spin", {"-s", socket_}));
  ::signal(SIGHUP, SIG_DFL);
  ASSERT_TRUE(vm.wait_for("!", seconds(30)));
  vm.signal(SIGHUP);
  EXPECT_EQ(client({"suspend", socket_}), 0) << "still there";
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
}

TEST_F(NativeLifeTest, AVmWhoseOutputNobodyReadsStillEnds) {
  std::string fifo = scratch_.path() + "/output";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  Fd reader(::open(fifo.c_str(), O_RDWR | O_CLOEXEC));  // opened, never read
  ASSERT_TRUE(reader);
  ::fcntl(reader.get(), F_SETPIPE_SZ, 4096);
  std::vector<std::byte> full(4096);
  ASSERT_TRUE(write_full(reader, full, "the pipe"));
  std::vector<std::string> arguments = {"--no-syslog",  "run",
                                        "-s",           socket_,
                                        "--serial",     "type=file,hardware=debugcon,path=" + fifo,
                                        "--serial",     "type=sink,num=1",
                                        payload("spin")};
  VmProcess vm(arguments);
  for (int i = 0; i < 3000 && scratch_.entries().size() < 2; ++i) ::usleep(10'000);
  ::usleep(300'000);  // lets the vCPU come to its write
  EXPECT_EQ(client({"stop", socket_}), 0);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
}

TEST_F(NativeLifeTest, ASignalEndsAVmWhoseTerminalNobodyReads) {
  std::vector<std::string> arguments = {"--no-syslog",   "run",
                                        "--serial",      "type=stdout,stdin",
                                        "--serial",      "type=stdout,hardware=debugcon",
                                        payload("count")};
  VmProcess vm(arguments, VmProcess::Input::kTerminal);
  ASSERT_TRUE(vm.has_output(std::chrono::milliseconds(30'000)));
  ::usleep(300'000);  // until the terminal is full
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit_unread(seconds(30)), 0);
}

TEST_F(NativeLifeTest, ALogThatNobodyReadsDoesNotHoldUpTheVm) {
  VmProcess vm(run("spin", {"-s", socket_}));
  ASSERT_TRUE(vm.wait_for("!", seconds(30)));
  ::fcntl(vm.error_pipe().get(), F_SETPIPE_SZ, 4096);
  for (int second = 0; second < 3; ++second) {  // the records of one second are limited
    for (int i = 0; i < 30; ++i) {
      auto peer = control::connect(socket_);
      ASSERT_TRUE(peer.has_value());
      Packet junk{.text = "{\"" + std::string(60, 'x') + "\":1}", .fds = {}};
      ASSERT_TRUE(peer->send(junk));
    }
    ::usleep(1'100'000);
  }
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit_unread(seconds(30)), 0);
  EXPECT_THAT(scratch_.entries(), IsEmpty());
}

TEST_F(NativeLifeTest, NothingIsLeftWhenItsProcessGroupIsKilled) {
  const std::string listens = scratch_.path() + "/guest";
  VmProcess vm(
      run("spin", {"-s", socket_, "--vsock", "cid=3,backend=user,listen=[22:" + listens + "]"}),
      VmProcess::Input::kTerminal);  // in a group of its own
  ASSERT_TRUE(vm.wait_for("!", seconds(30)));
  EXPECT_THAT(scratch_.entries(), ElementsAre("guest", "vm.sock"));
  ASSERT_NE(::getpgid(vm.pid()), ::getpgid(0));
  ASSERT_EQ(::killpg(::getpgid(vm.pid()), SIGKILL), 0);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 128 + SIGKILL);
  for (int i = 0; i < 1000 && !scratch_.entries().empty(); ++i) ::usleep(10'000);
  EXPECT_THAT(scratch_.entries(), IsEmpty());
}

TEST_F(NativeLifeTest, TheSocketOfAKilledVmIsReplaced) {
  {
    // Without a spawner nobody is left who could remove it.
    VmProcess vm(run("spin", {"-s", socket_, "--disable-sandbox"}));
    ASSERT_TRUE(vm.wait_for("!", seconds(30)));
    vm.signal(SIGKILL);
    EXPECT_EQ(vm.wait_exit(seconds(30)), 128 + SIGKILL);
  }
  ASSERT_THAT(scratch_.entries(), ElementsAre("vm.sock"));
  VmProcess vm(run("spin", {"-s", socket_}));
  ASSERT_TRUE(vm.wait_for("!", seconds(30)));
  EXPECT_EQ(client({"stop", socket_}), 0);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  EXPECT_THAT(scratch_.entries(), IsEmpty());
}

TEST_F(NativeLifeTest, ATakenSocketIsRefusedAndItsOwnerRunsOn) {
  VmProcess first(run("spin", {"-s", socket_}));
  ASSERT_TRUE(first.wait_for("!", seconds(30)));
  VmProcess second(run("spin", {"-s", socket_}));
  EXPECT_EQ(second.wait_exit(seconds(30)), 1);
  EXPECT_THAT(second.errors(), HasSubstr(socket_));
  EXPECT_EQ(client({"suspend", socket_}), 0) << client_output_;
  EXPECT_EQ(client({"resume", socket_}), 0) << client_output_;
  EXPECT_EQ(client({"stop", socket_}), 0);
  EXPECT_EQ(first.wait_exit(seconds(30)), 0);
}

TEST_F(NativeLifeTest, ADirectoryGetsASocketNamedAfterTheProcess) {
  VmProcess vm(run("spin", {"-s", scratch_.path()}));
  ASSERT_TRUE(vm.wait_for("!", seconds(30)));
  std::string name = "crosvm-" + std::to_string(vm.pid()) + ".sock";
  EXPECT_THAT(scratch_.entries(), ElementsAre(name));
  EXPECT_EQ(client({"stop", scratch_.path() + "/" + name}), 0);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  EXPECT_THAT(scratch_.entries(), IsEmpty());
}

TEST_F(NativeLifeTest, ASerialPortAppendsToItsFile) {
  std::string log = scratch_.path() + "/log";
  std::ofstream(log) << "before ";
  VmProcess vm({"--no-syslog", "--extended-status", "run", "--serial",
                "type=file,hardware=debugcon,path=" + log, "--serial", "type=sink,num=1",
                payload("reset")});
  EXPECT_EQ(vm.wait_exit(seconds(30)), 32);
  std::stringstream text;
  text << std::ifstream(log).rdbuf();
  EXPECT_EQ(text.str(), "before !");
}

TEST_F(NativeLifeTest, AClosedStdoutDoesNotEndTheVm) {
  VmProcess vm(run("reset"));
  vm.close_output();
  EXPECT_EQ(vm.wait_exit(seconds(30)), 32);
}

}  // namespace
}  // namespace crosvm::test
