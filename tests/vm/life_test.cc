// How a VM ends, and what reaches the guest: statuses, power button, serial input, signals.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <termios.h>

#include <fstream>

#include "agent_guest.h"
#include "guest_run.h"
#include "vm_process.h"

namespace crosvm::test {
namespace {

using testing::HasSubstr;

int run_client(const std::vector<std::string>& arguments) {
  VmProcess client(arguments);
  return client.wait_exit(std::chrono::seconds(30)).value_or(-1);
}

TEST(LifeTest, RebootIsAReset) {
  VmProcess vm(guest_arguments({}, run_word("reboot -f")));
  EXPECT_EQ(vm.wait_exit(), 32);
}

TEST(LifeTest, RebootThroughTheKeyboardControllerIsAReset) {
  VmProcess vm(guest_arguments({}, "reboot=k " + run_word("reboot -f")));
  EXPECT_EQ(vm.wait_exit(), 32);
}

TEST(LifeTest, APanicIsReportedAndEndsWithItsOwnStatus) {
  VmProcess vm(guest_arguments({}, run_word("echo c > /proc/sysrq-trigger")));
  EXPECT_EQ(vm.wait_exit(), 34);
  EXPECT_THAT(vm.errors(), HasSubstr("the guest reports a panic"));
}

// What the tests show, and try once more, when it was not asked for (docs/adr/0006).
TEST(LifeTest, TheLastWordsOfAGuestWithAnAgentAreHeard) {
  AgentGuest guest({});
  guest.shell("(sleep 1; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &");
  EXPECT_EQ(guest.vm().wait_exit(), 34);
  EXPECT_THAT(guest.vm().last_words(), HasSubstr("sysrq triggered crash"));
}

TEST(LifeTest, TheOutputAndStatusOfACommandComeBack) {
  GuestResult guest = run_in_guest({.vcpus = 2}, "printf 'a\\nb'; exit 7");
  EXPECT_EQ(guest.output, "a\nb");
  EXPECT_EQ(guest.status, 7);
  EXPECT_EQ(guest.vm_status, 0);
}

TEST(LifeTest, ThePowerButtonReachesTheGuest) {
  ScratchDirectory scratch;
  std::string socket = scratch.path() + "/vm.sock";
  VmProcess vm(guest_arguments({.extra = {"-s", socket}}, run_word("echo ready; sleep 600")));
  ASSERT_TRUE(vm.wait_for("ready"));
  EXPECT_EQ(run_client({"powerbtn", socket}), 0);
  EXPECT_EQ(vm.wait_exit(), 0);
  EXPECT_THAT(vm.output(), HasSubstr("@@crosvm-powerbutton@@"));
  EXPECT_TRUE(scratch.entries().empty()) << "the control socket is gone";
}

TEST(LifeTest, AGuestInStandbyGoesOnAtResume) {  // ACPI S1
  ScratchDirectory scratch;
  std::string socket = scratch.path() + "/vm.sock";
  VmProcess vm(
      guest_arguments({.vcpus = 2, .extra = {"-s", socket}},
                      run_word("echo ready; echo standby > /sys/power/state; echo up-$?")));
  ASSERT_TRUE(vm.wait_for("ready"));
  // Nothing tells when the guest has gone to sleep; a resume before that does nothing.
  for (int i = 0; i < 30 && !vm.wait_for("up-0", std::chrono::seconds(2)); ++i) {
    EXPECT_EQ(run_client({"resume", socket}), 0);
  }
  EXPECT_EQ(vm.wait_exit(), 0);
  EXPECT_THAT(vm.output(), HasSubstr("up-0"));
}

TEST(LifeTest, SerialInputReachesAShellAndAFullLineComesBack) {
  VmProcess vm(guest_arguments({}, "crosvm.test=shell"));
  ASSERT_TRUE(vm.wait_for("crosvm# "));
  // More than a 16550's FIFO and our queue hold at once.
  std::string text(200, 'x');
  vm.send("echo $((6 * 7))-" + text + "-end\n");
  EXPECT_TRUE(vm.wait_for("42-" + text + "-end"));
  vm.send("poweroff -f\n");
  EXPECT_EQ(vm.wait_exit(), 0);
}

TEST(LifeTest, OnATerminalCtrlCGoesToTheGuestAndCtrlAXLeaves) {
  VmProcess vm(guest_arguments({}, "crosvm.test=shell"), VmProcess::Input::kTerminal);
  termios before{};
  ASSERT_TRUE(vm.wait_for("crosvm# "));
  // The answer comes when the line editor is done: from then on the guest's terminal makes signals.
  vm.send("echo asleep-$((1 + 1)); sleep 1000\n");
  ASSERT_TRUE(vm.wait_for("asleep-2"));
  vm.send("\x03");  // ends the guest's sleep, not the VM
  vm.send("echo still-$((1 + 1))-here\n");
  EXPECT_TRUE(vm.wait_for("still-2-here"));
  vm.send("\x01x");
  EXPECT_EQ(vm.wait_exit(std::chrono::seconds(30)), 0);
  ASSERT_EQ(::tcgetattr(vm.terminal().get(), &before), 0);
  EXPECT_TRUE((before.c_lflag & ICANON) != 0 && (before.c_lflag & ECHO) != 0)
      << "the terminal is as it was";
}

/// Each way to end a running VM from outside leaves status 0 and no socket.
TEST(LifeTest, StopAndSignalsEndTheVmWithStatusZero) {
  for (int how : {0, SIGTERM, SIGINT, SIGHUP}) {
    ScratchDirectory scratch;
    std::string socket = scratch.path() + "/vm.sock";
    VmProcess vm(guest_arguments({.extra = {"-s", socket}}, ""));
    while (scratch.entries().empty() && !vm.wait_exit(std::chrono::seconds(0))) {
    }
    if (how == 0) {
      EXPECT_EQ(run_client({"stop", socket}), 0);
    } else {
      vm.signal(how);
    }
    EXPECT_EQ(vm.wait_exit(std::chrono::seconds(60)), 0) << how;
    EXPECT_TRUE(scratch.entries().empty()) << how;
  }
}

}  // namespace
}  // namespace crosvm::test
