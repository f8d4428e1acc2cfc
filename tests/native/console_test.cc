// The host's side of consoles: a stdout that nobody reads, and the terminal after every way out.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "proc_facts.h"
#include "vm_process.h"

namespace crosvm::test {
namespace {

using std::chrono::seconds;

std::string payload(const char* name) { return std::string(CROSVM_PAYLOADS "/payload_") + name; }

class NativeConsoleTest : public testing::Test {
 protected:
  void SetUp() override {
    Fd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm) GTEST_SKIP() << "/dev/kvm does not open: " << std::strerror(errno);
  }
  /// What the debug console has written.
  size_t progress() const {
    std::error_code none;
    const auto size = std::filesystem::file_size(log_, none);
    return none ? 0 : size;
  }
  /// Whether it writes more, which the vCPU does only when nothing holds it up.
  bool goes_on() const {
    const size_t before = progress();
    for (int i = 0; i < 3000 && progress() < before + 20; ++i) ::usleep(10'000);
    return progress() >= before + 20;
  }

  ScratchDirectory scratch_;
  std::string log_ = scratch_.path() + "/log";
  std::string debugcon_ = "type=file,hardware=debugcon,path=" + log_;
};

TEST_F(NativeConsoleTest, AVirtioConsoleWhoseStdoutNobodyReadsHoldsUpNobody) {
  VmProcess vm({"--no-syslog", "run", "--disable-sandbox", "-m", "64", "--serial", debugcon_,
                "--serial", "type=stdout,hardware=virtio-console", "--serial", "type=sink,num=1",
                payload("emergency")});
  ASSERT_TRUE(vm.wait_for("eeee", seconds(30)));  // then nothing is read any more
  // A pipe holds 64 KiB, and each byte of the log stands for 256 characters.
  for (int i = 0; i < 3000 && progress() < 600; ++i) ::usleep(10'000);
  EXPECT_TRUE(goes_on()) << progress();
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit_unread(seconds(30)), 0);
}

TEST_F(NativeConsoleTest, AVirtioConsoleWhoseStdoutIsClosedGoesOn) {
  VmProcess vm({"--no-syslog", "run", "--disable-sandbox", "-m", "64", "--serial", debugcon_,
                "--serial", "type=stdout,hardware=virtio-console", "--serial", "type=sink,num=1",
                payload("emergency")});
  ASSERT_TRUE(vm.wait_for("eeee", seconds(30)));
  vm.close_output();
  EXPECT_TRUE(goes_on()) << progress();
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  EXPECT_THAT(vm.errors(), testing::HasSubstr("console output is lost"));
}

/// A VM on a terminal of its own.
class NativeTerminalTest : public NativeConsoleTest,
                           public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    NativeConsoleTest::SetUp();
    int ours = -1;
    int theirs = -1;
    ASSERT_EQ(::openpty(&ours, &theirs, nullptr, nullptr, nullptr), 0);
    Fd master(ours);
    Fd terminal(theirs);
    ASSERT_EQ(::tcgetattr(terminal.get(), &fresh_), 0);
    ASSERT_NE(fresh_.c_lflag & ICANON, 0U);
  }
  static termios modes(const VmProcess& vm) {
    termios now{};
    EXPECT_EQ(::tcgetattr(vm.terminal().get(), &now), 0);
    return now;
  }
  std::vector<std::string> run(const char* name) {
    return {"--no-syslog", "--extended-status", "run",      "--disable-sandbox", "-m",         "64",
            "--serial",    debugcon_,           "--serial", GetParam(),          payload(name)};
  }
  static bool wait_raw(const VmProcess& vm) {
    for (int i = 0; i < 3000 && (modes(vm).c_lflag & ICANON) != 0; ++i) ::usleep(10'000);
    return (modes(vm).c_lflag & ICANON) == 0;
  }
  static void expect_same(const termios& now, const termios& before, const std::string& how) {
    EXPECT_EQ(now.c_lflag, before.c_lflag) << how;
    EXPECT_EQ(now.c_iflag, before.c_iflag) << how;
    EXPECT_EQ(now.c_oflag, before.c_oflag) << how;
    EXPECT_EQ(now.c_cc[VMIN], before.c_cc[VMIN]) << how;
  }

  termios fresh_{};  // of a terminal that nobody has touched
};

INSTANTIATE_TEST_SUITE_P(, NativeTerminalTest,
                         testing::Values("type=stdout,stdin,num=1",
                                         "type=stdout,stdin,hardware=virtio-console"),
                         [](const auto& info) {
                           return info.index == 0 ? "Serial" : "VirtioConsole";
                         });

TEST_P(NativeTerminalTest, IsAsItWasAfterTheGuestEnds) {
  VmProcess vm(run("reset"), VmProcess::Input::kTerminal);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 32);
  expect_same(modes(vm), fresh_, "reset");
}

TEST_P(NativeTerminalTest, IsAsItWasAfterCtrlAX) {
  VmProcess vm(run("spin"), VmProcess::Input::kTerminal);
  ASSERT_TRUE(wait_raw(vm));
  vm.send("\x01x");
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  expect_same(modes(vm), fresh_, "Ctrl-A x");
}

TEST_P(NativeTerminalTest, IsAsItWasAfterASignal) {
  for (int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGILL}) {
    VmProcess vm(run("spin"), VmProcess::Input::kTerminal);
    ASSERT_TRUE(wait_raw(vm)) << number;
    vm.signal(number);
    const bool orderly = number == SIGTERM || number == SIGINT || number == SIGHUP;
    EXPECT_EQ(vm.wait_exit(seconds(30)), orderly ? 0 : 128 + number);
    expect_same(modes(vm), fresh_, ::sigabbrev_np(number));
  }
}

// With filters, as their handlers run on the VM's own threads.
TEST_P(NativeTerminalTest, IsRawAgainWhenAStoppedVmGoesOn) {
  std::vector<std::string> arguments = run("spin");
  std::erase(arguments, "--disable-sandbox");
  VmProcess vm(arguments, VmProcess::Input::kTerminal);
  ASSERT_TRUE(wait_raw(vm));
  ::usleep(300'000);  // until the filters are on
  const auto is_stopped = [&] { return status_of(vm.pid())["State"].starts_with("T"); };
  for (int round = 0; round < 2; ++round) {
    vm.signal(SIGSTOP);
    for (int i = 0; i < 3000 && !is_stopped(); ++i) ::usleep(10'000);
    ASSERT_TRUE(is_stopped());
    ASSERT_EQ(::tcsetattr(vm.terminal().get(), TCSANOW, &fresh_), 0);  // as shells do
    vm.signal(SIGCONT);
    ASSERT_TRUE(wait_raw(vm)) << vm.errors();
  }
  // Who has no shell that could let it go on, as here, is not stopped by this.
  ASSERT_EQ(::tcsetattr(vm.terminal().get(), TCSANOW, &fresh_), 0);
  vm.signal(SIGTSTP);
  ASSERT_TRUE(wait_raw(vm)) << vm.errors();
  EXPECT_FALSE(is_stopped());
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0) << vm.errors();
  expect_same(modes(vm), fresh_, "continued");
}

}  // namespace
}  // namespace crosvm::test
