// The processes of a VM: what a device process may do, and what becomes of all of them when one
// ends. With kernels of a few instructions, on any /dev/kvm.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "vm_process.h"

namespace crosvm::test {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<pid_t> children_of(pid_t pid) {
  const std::string id = std::to_string(pid);
  std::istringstream list(text_of("/proc/" + id + "/task/" + id + "/children"));
  std::vector<pid_t> children;
  for (pid_t child; list >> child;) children.push_back(child);
  return children;
}

/// "name: value" lines of /proc/PID/status.
std::map<std::string, std::string> status_of(pid_t pid) {
  std::map<std::string, std::string> fields;
  std::istringstream lines(text_of("/proc/" + std::to_string(pid) + "/status"));
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    const size_t value = line.find_first_not_of("\t ", colon + 1);
    if (value != std::string::npos) fields[line.substr(0, colon)] = line.substr(value);
  }
  return fields;
}

std::string name_of(pid_t pid) { return status_of(pid)["Name"]; }

std::string namespace_of(pid_t pid, const char* kind) {
  return std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/ns/" + kind).string();
}

/// Whether a process is there that has not ended; one that is still to be reaped has.
bool lives(pid_t pid) {
  const std::string state = status_of(pid)["State"];
  return !state.empty() && state[0] != 'Z' && state[0] != 'X';
}

bool ends_soon(const std::vector<pid_t>& pids) {
  for (int tries = 0; tries < 1000; ++tries) {
    if (std::ranges::none_of(pids, lives)) return true;
    ::usleep(10'000);
  }
  return false;
}

class NativeWorkerTest : public testing::Test {
 protected:
  void SetUp() override {
    Fd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm) GTEST_SKIP() << "/dev/kvm does not open: " << std::strerror(errno);
    std::filesystem::resize_file(made_file("disk"), 1 << 20);
  }

  std::string made_file(const std::string& name, const std::string& text = {}) {
    std::string path = scratch_.path() + "/" + name;
    std::ofstream(path) << text;
    return path;
  }

  /// A payload that never ends, with a device of each kind.
  std::vector<std::string> arguments(const std::vector<std::string>& flags = {}) {
    std::vector<std::string> all = {"--no-syslog", "--extended-status", "run"};
    all.insert(all.end(), {"--serial", "type=stdout,hardware=debugcon", "-m", "64"});
    all.insert(all.end(), {"--serial", "type=sink,num=1"});
    all.insert(all.end(), {"--serial", "type=sink,hardware=virtio-console,num=1"});
    all.insert(all.end(), {"--block", scratch_.path() + "/disk", "-s", socket_});
    all.insert(all.end(), flags.begin(), flags.end());
    all.emplace_back(CROSVM_PAYLOADS "/payload_spin");
    return all;
  }

  /// Runs until the guest does, and finds its processes.
  void start(VmProcess& vm) {
    ASSERT_TRUE(vm.wait_for("!", seconds(30))) << vm.errors();
    ASSERT_EQ(children_of(vm.pid()).size(), 1u);
    spawner_ = children_of(vm.pid()).front();
    workers_ = children_of(spawner_);
    all_ = workers_;
    all_.push_back(spawner_);
    all_.push_back(vm.pid());
  }

  pid_t worker(const std::string& name) {
    for (pid_t pid : workers_) {
      if (name_of(pid) == name) return pid;
    }
    ADD_FAILURE() << "no process " << name;
    return -1;
  }

  /// The process that takes the place of `former`; its jail is complete. 0: there is none.
  pid_t successor(const std::string& name, pid_t former) {
    for (int tries = 0; tries < 1000; ++tries) {
      for (pid_t pid : children_of(spawner_)) {
        auto status = status_of(pid);
        if (pid != former && status["Name"] == name && status["Seccomp"] == "2") return pid;
      }
      ::usleep(10'000);
    }
    return 0;
  }

  std::string refusal(const std::vector<std::string>& flags) {
    VmProcess vm(arguments(flags));
    EXPECT_EQ(vm.wait_exit(seconds(60)), 1);
    EXPECT_THAT(scratch_.entries(), Not(Contains("vm.sock")));
    return vm.errors();
  }

  ScratchDirectory scratch_;
  std::string socket_ = scratch_.path() + "/vm.sock";
  pid_t spawner_ = -1;
  std::vector<pid_t> workers_;
  std::vector<pid_t> all_;
};

TEST_F(NativeWorkerTest, EveryDeviceIsAloneInAnEmptyRoom) {
  VmProcess vm(arguments());
  start(vm);
  std::vector<std::string> names;
  for (pid_t pid : workers_) names.push_back(name_of(pid));
  EXPECT_THAT(names, UnorderedElementsAre("block0", "console0", "rng"));
  std::map<std::string, int> users;
  for (pid_t pid : workers_) {
    SCOPED_TRACE(name_of(pid));
    auto status = status_of(pid);
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
      EXPECT_EQ(status[set], "0000000000000000") << set;
    }
    EXPECT_EQ(status["NoNewPrivs"], "1");
    EXPECT_EQ(status["Seccomp"], "2");
    for (const char* kind : {"user", "pid", "mnt", "ipc", "uts", "cgroup", "net"}) {
      EXPECT_NE(namespace_of(pid, kind), namespace_of(vm.pid(), kind)) << kind;
    }
    ++users[namespace_of(pid, "user")];
    EXPECT_EQ(namespace_of(pid, "net"), namespace_of(spawner_, "net")) << "one for all";
    const std::string root = "/proc/" + std::to_string(pid) + "/root";
    EXPECT_TRUE(std::filesystem::is_empty(root));
    EXPECT_THAT(text_of("/proc/" + std::to_string(pid) + "/mountinfo"), HasSubstr(" ro,"));
  }
  EXPECT_EQ(users.size(), workers_.size()) << "none shares a user namespace";
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  EXPECT_TRUE(ends_soon(all_));
}

TEST_F(NativeWorkerTest, WithoutASandboxThereIsOneProcess) {
  VmProcess vm(arguments({"--disable-sandbox"}));
  ASSERT_TRUE(vm.wait_for("!", seconds(30)));
  EXPECT_THAT(children_of(vm.pid()), IsEmpty());
}

TEST_F(NativeWorkerTest, ADeadWorkerEndsTheVmWhichNamesIt) {
  for (const char* name : {"block0", "console0", "rng"}) {
    VmProcess vm(arguments());
    start(vm);
    ::kill(worker(name), SIGKILL);
    EXPECT_EQ(vm.wait_exit(seconds(30)), 33) << name;
    EXPECT_THAT(vm.errors(), AllOf(HasSubstr(name), HasSubstr("was killed by SIGKILL")));
    EXPECT_TRUE(ends_soon(all_)) << name;
    EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
  }
}

TEST_F(NativeWorkerTest, AWorkerThatMayBeStartedAnewDoesNotEndTheVm) {
  VmProcess vm(arguments({"--restart-devices=block,rng"}));
  start(vm);
  for (const char* name : {"block0", "rng"}) {
    const pid_t former = worker(name);
    ::kill(former, SIGKILL);
    const pid_t next = successor(name, former);
    ASSERT_GT(next, 0) << name << ": " << vm.errors();
    all_.push_back(next);
    EXPECT_EQ(status_of(next)["Seccomp"], "2");
    EXPECT_EQ(status_of(next)["CapBnd"], "0000000000000000");
  }
  EXPECT_TRUE(lives(worker("console0")));
  ::kill(worker("console0"), SIGKILL);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 33) << "consoles are not started anew";
  for (const char* name : {"block0", "rng"}) {
    EXPECT_THAT(
        vm.errors(),
        HasSubstr(std::string(name) +
                  ": its process was killed by SIGKILL; it is started anew, for the 1. time"));
  }
  EXPECT_THAT(vm.errors(), HasSubstr("console0: its process was killed by SIGKILL; the VM ends"));
  EXPECT_TRUE(ends_soon(all_));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeWorkerTest, AWorkerIsStartedAnewThreeTimesAMinute) {
  VmProcess vm(arguments({"--restart-devices=rng"}));
  start(vm);
  pid_t present = worker("rng");
  for (int time = 0; time < 3; ++time) {
    ::kill(present, SIGKILL);
    present = successor("rng", present);
    ASSERT_GT(present, 0) << time << ": " << vm.errors();
    all_.push_back(present);
  }
  ::kill(present, SIGKILL);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 33);
  EXPECT_THAT(vm.errors(), HasSubstr("rng: its process was killed by SIGKILL, after it was started "
                                     "anew 3 times within a minute"));
  EXPECT_TRUE(ends_soon(all_));
}

TEST_F(NativeWorkerTest, WorkersThatHeedNobodyEndWithTheirSpawner) {
  VmProcess vm(arguments());
  start(vm);
  for (pid_t pid : workers_) ::kill(pid, SIGSTOP);
  ::kill(spawner_, SIGSTOP);
  vm.signal(SIGKILL);
  ::kill(spawner_, SIGKILL);
  EXPECT_TRUE(ends_soon(all_));
}

TEST_F(NativeWorkerTest, WithoutItsSpawnerTheVmEnds) {
  VmProcess vm(arguments());
  start(vm);
  ::kill(spawner_, SIGKILL);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 33);
  EXPECT_THAT(vm.errors(), HasSubstr("spawner"));
  EXPECT_TRUE(ends_soon(all_));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeWorkerTest, NothingOfAKilledVmRemains) {
  VmProcess vm(arguments());
  start(vm);
  vm.signal(SIGKILL);
  EXPECT_TRUE(ends_soon(all_));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeWorkerTest, OfAVmKilledWithItsSpawnerOnlyTheSocketRemainsForTheNextToReplace) {
  {
    VmProcess vm(arguments());
    start(vm);
    ::kill(spawner_, SIGSTOP);  // so that it cannot do anything in between
    vm.signal(SIGKILL);
    ::kill(spawner_, SIGKILL);
    EXPECT_TRUE(ends_soon(all_));
    EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk", "vm.sock"));
  }
  VmProcess next(arguments());
  start(next);
  next.signal(SIGTERM);
  EXPECT_EQ(next.wait_exit(seconds(30)), 0);
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeWorkerTest, TheTerminalOfAKilledVmIsAsItWas) {
  VmProcess vm(arguments({"--serial", "type=stdout,hardware=virtio-console,num=2,stdin"}),
               VmProcess::Input::kTerminal);
  ASSERT_TRUE(vm.wait_for("!", seconds(30)));
  const auto settings = [&vm] {
    termios now{};
    ::tcgetattr(vm.terminal().get(), &now);
    return now.c_lflag & (ICANON | ECHO | ISIG);
  };
  ASSERT_EQ(settings(), 0u) << "raw while the VM runs";
  vm.signal(SIGKILL);
  for (int tries = 0; tries < 1000 && settings() == 0; ++tries) ::usleep(10'000);
  EXPECT_EQ(settings(), static_cast<tcflag_t>(ICANON | ECHO | ISIG));
}

TEST_F(NativeWorkerTest, APivotRootMustBeADirectoryByItsFullPath) {
  EXPECT_THAT(refusal({"--pivot-root", "relative"}), HasSubstr("--pivot-root relative"));
  EXPECT_THAT(refusal({"--pivot-root", scratch_.path() + "/none"}), HasSubstr("No such file"));
  EXPECT_THAT(refusal({"--pivot-root", scratch_.path() + "/disk"}), HasSubstr("no directory"));
}

TEST_F(NativeWorkerTest, APivotRootIsTheRootOfEveryWorker) {
  const std::string root = scratch_.path() + "/root";
  std::filesystem::create_directory(root);
  std::ofstream(root + "/sign") << "here";
  VmProcess vm(arguments({"--pivot-root", root}));
  start(vm);
  for (pid_t pid : workers_) {
    EXPECT_EQ(text_of("/proc/" + std::to_string(pid) + "/root/sign"), "here");
  }
}

TEST_F(NativeWorkerTest, PoliciesOfADirectoryTakeThePlaceOfOurs) {
  const std::string policies = scratch_.path() + "/policies";
  std::filesystem::create_directory(policies);
  EXPECT_THAT(refusal({"--seccomp-policy-dir", policies}),
              HasSubstr(policies + "/serial_device.policy"));
  for (const char* name : {"serial_device", "block_device", "rng_device"}) {
    std::ofstream(policies + "/" + name + ".policy") << "sendmsg: 1\nclose: 1\nexit_group: 1\n";
  }
  EXPECT_THAT(refusal({"--seccomp-policy-dir", policies}),
              AllOf(HasSubstr("which its policy does not allow"), HasSubstr("console0"),
                    HasSubstr("is denied")));
}

TEST_F(NativeWorkerTest, FailuresThatAreOnlyLoggedDoNotEndTheVm) {
  const std::string policies = scratch_.path() + "/policies";
  std::filesystem::create_directory(policies);
  for (const char* name : {"serial_device", "block_device", "rng_device"}) {
    std::ofstream(policies + "/" + name + ".policy") << "sendmsg: 1\n";
  }
  VmProcess vm(arguments({"--seccomp-policy-dir", policies, "--seccomp-log-failures"}));
  start(vm);
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
}

}  // namespace
}  // namespace crosvm::test
