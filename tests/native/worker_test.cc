// The processes of a VM: what a device process may do, and what becomes of all of them when one
// ends. With kernels of a few instructions, on any /dev/kvm.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "control/socket.h"
#include "sandboxed_vm.h"

namespace crosvm::test {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

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

TEST_F(NativeWorkerTest, DoctorShowsTheProcessesOfAVm) {
  VmProcess vm(arguments());
  start(vm);
  VmProcess doctor({"doctor", "--processes", socket_});
  ASSERT_EQ(doctor.wait_exit(seconds(30)), 0) << doctor.errors();
  for (pid_t pid : all_) EXPECT_THAT(doctor.output(), HasSubstr("pid " + std::to_string(pid)));
  EXPECT_THAT(doctor.output(), AllOf(HasSubstr("VMM: pid"), HasSubstr("spawner: pid"),
                                     HasSubstr("device block0: pid"), HasSubstr("guest memory"),
                                     HasSubstr("/disk: what the device serves")));
  VmProcess json({"doctor", "--json", "--processes", socket_});
  EXPECT_EQ(json.wait_exit(seconds(30)), 0);
  EXPECT_THAT(json.output(), HasSubstr("\"role\": \"device rng\""));
  auto listener = control::Listener::open(scratch_.path() + "/other");  // no VM, but this test
  ASSERT_TRUE(listener);
  VmProcess other({"doctor", "--processes", scratch_.path() + "/other"});
  EXPECT_EQ(other.wait_exit(seconds(30)), 1);
  EXPECT_THAT(other.errors(), HasSubstr("runs no VM"));
  VmProcess none({"doctor", "--processes", scratch_.path() + "/none"});
  EXPECT_EQ(none.wait_exit(seconds(30)), 1);
  EXPECT_THAT(none.errors(), HasSubstr(scratch_.path() + "/none"));
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
    ASSERT_NE(next, kNobody) << name << ": " << vm.errors();
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
    ASSERT_NE(present, kNobody) << time << ": " << vm.errors();
    all_.push_back(present);
  }
  ::kill(present, SIGKILL);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 33);
  EXPECT_THAT(vm.errors(), HasSubstr("rng: its process was killed by SIGKILL, after it was started "
                                     "anew 3 times within a minute"));
  EXPECT_TRUE(ends_soon(all_));
}

/// The spawner of a VM that has just begun, stopped before it has started all device processes; 0
/// when it was too fast.
pid_t stopped_spawner(const VmProcess& vm) {
  std::vector<pid_t> children;
  while (children.empty() && lives(vm.pid())) children = children_of(vm.pid());
  if (children.empty()) return 0;
  ::kill(children.front(), SIGSTOP);
  while (status_of(children.front())["State"].starts_with('R')) ::usleep(100);
  return children_of(children.front()).size() < 3 ? children.front() : 0;
}

TEST_F(NativeWorkerTest, ProcessesThatDoNotStartDoNotHoldUpASignal) {
  for (int number : {SIGTERM, SIGINT}) {
    std::optional<VmProcess> vm;
    pid_t spawner = 0;
    for (int tries = 0; tries < 100 && spawner == 0; ++tries) {
      vm.emplace(arguments());
      spawner = stopped_spawner(*vm);
    }
    ASSERT_NE(spawner, 0);
    ::usleep(300'000);  // lets the VM come to where it waits
    vm->signal(number);
    ::usleep(300'000);
    ::kill(spawner, SIGCONT);  // a VM that still waits would run before it ends
    EXPECT_EQ(vm->wait_exit(seconds(30)), 0);
    EXPECT_THAT(vm->errors(), AllOf(HasSubstr("before it runs"),
                                    HasSubstr("waiting for its process was interrupted")));
    EXPECT_TRUE(ends_soon({spawner, vm->pid()}));
    EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
  }
}

TEST_F(NativeWorkerTest, ASpawnerThatStandsStillDoesNotKeepTheVmFromEnding) {
  VmProcess vm(arguments());
  start(vm);
  ::kill(spawner_, SIGSTOP);
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  EXPECT_THAT(vm.errors(), HasSubstr("the spawner of device processes (pid " +
                                     std::to_string(spawner_) + ") has not ended"));
  EXPECT_TRUE(ends_soon(all_));
}

/// timeout(1) signals its child, and then the group that it is in.
TEST_F(NativeWorkerTest, SignalsThatComeTogetherAreOneRequest) {
  VmProcess vm(arguments());
  start(vm);
  ::kill(spawner_, SIGSTOP);  // the VM waits for it at its end
  for (const int number : {SIGTERM, SIGTERM, SIGHUP, SIGINT}) {
    vm.signal(number);
    ::usleep(100'000);
    ASSERT_TRUE(lives(vm.pid())) << number;
  }
  ::kill(spawner_, SIGCONT);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
  EXPECT_TRUE(ends_soon(all_));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeWorkerTest, ALaterSignalEndsTheVmAtOnceAndTheSpawnerTheRest) {
  VmProcess vm(arguments());
  start(vm);
  ::kill(spawner_, SIGSTOP);
  vm.signal(SIGTERM);
  ::usleep(1'200'000);
  ASSERT_TRUE(lives(vm.pid()));
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 128 + SIGTERM);
  ::kill(spawner_, SIGCONT);
  EXPECT_TRUE(ends_soon(all_));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

/// Who types it twice means it.
TEST_F(NativeWorkerTest, ASecondKeyEndsTheVmAtOnce) {
  VmProcess vm(arguments(), VmProcess::Input::kTerminal);
  start(vm);
  ::kill(spawner_, SIGSTOP);
  for (int times = 0; times < 2; ++times) {
    vm.send("\x03");
    ::usleep(100'000);
  }
  EXPECT_EQ(vm.wait_exit(seconds(30)), 128 + SIGINT);
  ::kill(spawner_, SIGCONT);
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

/// What a VM has by now, by what it is.
using Roles = std::map<std::string, std::vector<pid_t>>;
constexpr char kVmm[] = "the VMM";
constexpr char kSpawner[] = "the spawner";
constexpr char kWorker[] = "a worker";

Roles roles_of(pid_t vmm) {
  Roles roles = {{kVmm, {vmm}}, {kSpawner, children_of(vmm)}, {kWorker, {}}};
  for (pid_t spawner : roles[kSpawner]) roles[kWorker] = children_of(spawner);
  return roles;
}

std::vector<pid_t> all_of(const Roles& roles) {
  std::vector<pid_t> all;
  for (const auto& [role, pids] : roles) all.insert(all.end(), pids.begin(), pids.end());
  return all;
}

/// ./dev soak kill does it more often.
TEST_F(NativeWorkerTest, NothingRemainsWhateverIsKilledWhenever) {
  const char* times = std::getenv("CROSVM_TEST_KILLS");
  const char* seed = std::getenv("CROSVM_TEST_SEED");
  const uint64_t count = times ? std::strtoull(times, nullptr, 10) : 4;
  std::mt19937_64 random(seed ? std::strtoull(seed, nullptr, 10) : 7);
  std::map<std::string, uint64_t> killed = {{kVmm, 0}, {kSpawner, 0}, {kWorker, 0}};
  while (true) {
    const auto least =
        std::ranges::min_element(killed, {}, [](const auto& role) { return role.second; });
    if (least->second >= count) break;
    SCOPED_TRACE(least->first + " " + std::to_string(least->second));
    VmProcess vm(arguments({"--restart-devices=block"}));
    ::usleep(static_cast<useconds_t>(random() % 80'000));  // the start is among the moments
    const Roles roles = roles_of(vm.pid());
    std::vector<pid_t> processes = all_of(roles);
    const auto any = [&random](const std::vector<pid_t>& from) {
      return from[random() % from.size()];
    };
    const bool is_there = !roles.at(least->first).empty();
    const pid_t victim = is_there ? any(roles.at(least->first)) : vm.pid();
    ++killed[is_there ? least->first : kVmm];
    ::kill(victim, SIGKILL);
    const pid_t other = any(processes);
    const bool both = random() % 2 == 0;
    if (both) ::kill(other, SIGKILL);  // at once
    ::usleep(static_cast<useconds_t>(random() % 20'000));
    // The workers may have successors.
    for (pid_t spawner : roles.at(kSpawner)) {
      for (pid_t child : children_of(spawner)) processes.push_back(child);
    }
    vm.signal(SIGTERM);  // one that lives on
    vm.wait_exit(seconds(30));
    ASSERT_TRUE(ends_soon(processes)) << vm.errors();
    // Only of a VMM that was killed with its spawner the socket may stay.
    const auto was_killed = [&](const char* role) {
      const auto& pids = roles.at(role);
      return std::ranges::count(pids, victim) > 0 || (both && std::ranges::count(pids, other) > 0);
    };
    if (was_killed(kVmm) && was_killed(kSpawner)) std::filesystem::remove(socket_);
    // A spawner that was only just there when its VMM died is none of `processes`.
    for (int tries = 0; tries < 1000 && scratch_.entries().size() > 1; ++tries) ::usleep(10'000);
    ASSERT_THAT(scratch_.entries(), UnorderedElementsAre("disk")) << vm.errors();
  }
  for (const auto& [who, number] : killed) {
    std::printf("%s: %lu\n", who.c_str(), static_cast<unsigned long>(number));
  }
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

// As after "2> log": what the VMM writes at its own place would overwrite what workers append.
TEST_F(NativeWorkerTest, ALogFileGetsTheLinesOfAllProcesses) {
  const std::string log = made_file("log");
  const Fd file(::open(log.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  const auto appends = [&file] { return (::fcntl(file.get(), F_GETFL) & O_APPEND) != 0; };
  ASSERT_FALSE(appends());
  std::vector<std::string> all = arguments();
  all.insert(all.begin(), crosvm_binary());
  std::vector<char*> argv;
  for (std::string& argument : all) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(file.get(), STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  for (int tries = 0; tries < 1000 && !appends(); ++tries) ::usleep(10'000);
  const Fd worker(::open(log.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  for (const Fd* writer : {&worker, &file}) EXPECT_EQ(::write(writer->get(), "a line\n", 7), 7);
  EXPECT_THAT(text_of(log), HasSubstr("a line\na line\n"));
  ::kill(pid, SIGTERM);
  EXPECT_EQ(::waitpid(pid, nullptr, 0), pid);
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
  EXPECT_THAT(refusal({"--pivot-root", scratch_.path() + "/disk"}), HasSubstr("not a directory"));
  EXPECT_THAT(refusal({"--pivot-root", scratch_.path()}),
              AllOf(HasSubstr("--pivot-root " + scratch_.path()), HasSubstr("is not empty")));
}

TEST_F(NativeWorkerTest, APivotRootIsTheRootOfEveryWorker) {
  const std::string root = scratch_.path() + "/root";
  std::filesystem::create_directory(root);
  struct stat wanted{};
  ASSERT_EQ(::stat(root.c_str(), &wanted), 0);
  VmProcess vm(arguments({"--pivot-root", root}));
  start(vm);
  for (pid_t pid : workers_) {
    struct stat found{};
    EXPECT_EQ(::stat(("/proc/" + std::to_string(pid) + "/root/").c_str(), &found), 0);
    EXPECT_EQ(found.st_ino, wanted.st_ino);
    EXPECT_EQ(found.st_dev, wanted.st_dev);
  }
}

TEST_F(NativeWorkerTest, PoliciesOfADirectoryTakeThePlaceOfOurs) {
  const std::string policies = scratch_.path() + "/policies";
  EXPECT_THAT(refusal({"--seccomp-policy-dir", policies}),
              AllOf(HasSubstr("--seccomp-policy-dir: looking at " + policies),
                    HasSubstr("give a directory of policies")));
  std::filesystem::create_directory(policies);
  EXPECT_THAT(refusal({"--seccomp-policy-dir", policies}),
              AllOf(HasSubstr("--seccomp-policy-dir"), HasSubstr("put the policy there"),
                    HasSubstr(policies + "/serial_device.policy")));
  for (const char* name : {"serial_device", "block_device", "rng_device"}) {
    std::ofstream(policies + "/" + name + ".policy") << "sendmsg: 1\nclose: 1\nexit_group: 1\n";
  }
  // A process that came to be and died ends the VM, as one that dies later.
  EXPECT_THAT(refusal({"--seccomp-policy-dir", policies}, 33),
              AllOf(HasSubstr("which its policy does not allow"), HasSubstr("console0"),
                    HasSubstr("is denied"), HasSubstr("exiting with crash")));
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
