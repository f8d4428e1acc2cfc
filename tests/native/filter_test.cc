// The system call filters of the VMM's own threads.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "sandboxed_vm.h"

namespace crosvm::test {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class NativeFilterTest : public NativeWorkerTest {
 protected:
  /// A directory with our policies for devices, where those in `policies` are others.
  std::string policies_with(const std::string& name, const std::string& policy) {
    std::string path = scratch_.path() + "/policies";
    std::filesystem::copy(CROSVM_POLICIES, path, std::filesystem::copy_options::recursive);
    std::ofstream(path + "/" + name + ".policy") << policy;
    return path;
  }

  std::string errors_of_killed(const std::string& policies) {
    VmProcess vm(arguments({"--seccomp-policy-dir", policies}));
    EXPECT_EQ(vm.wait_exit(seconds(30)), 128 + SIGKILL);
    for (int tries = 0; tries < 1000 && scratch_.entries().size() > 2; ++tries) ::usleep(10'000);
    EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk", "policies"));
    return vm.errors();
  }
};

/// Waits until each has its filter: the guest begins before the control loop does.
std::vector<std::map<std::string, std::string>> settled_threads(pid_t pid, size_t count) {
  std::vector<std::map<std::string, std::string>> threads;
  for (int tries = 0; tries < 1000; ++tries) {
    threads.clear();
    const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
      auto status = status_in(task.path().string() + "/status");
      // Some kernels show a thread of KVM's here, which runs none of our code.
      if (!status["Name"].starts_with("kvm-")) threads.push_back(std::move(status));
    }
    const auto has_filter = [](auto& status) { return status["Seccomp"] == "2"; };
    if (threads.size() == count && std::ranges::all_of(threads, has_filter)) break;
    ::usleep(10'000);
  }
  return threads;
}

TEST_F(NativeFilterTest, EveryThreadOfTheVmmHasAFilterAndNoPrivileges) {
  VmProcess vm(arguments({"--cpus", "2"}));
  start(vm);
  std::vector<std::string> names;
  for (auto& status : settled_threads(vm.pid(), 4)) {
    SCOPED_TRACE(status["Name"]);
    names.push_back(status["Name"]);
    EXPECT_EQ(status["Seccomp"], "2");
    EXPECT_EQ(status["NoNewPrivs"], "1");
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
      EXPECT_EQ(status[set], "0000000000000000") << set;
    }
  }
  EXPECT_THAT(names, UnorderedElementsAre(HasSubstr("crosvm"), "irq_relay", "crosvm_vcpu0",
                                          "crosvm_vcpu1"));
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
}

TEST_F(NativeFilterTest, ADeniedCallOfAVcpuThreadEndsTheVmAndIsNamed) {
  EXPECT_THAT(errors_of_killed(policies_with("vmm_vcpu", "futex: 1\n")),
              AllOf(HasSubstr("vCPU 0: this thread of the VMM called ioctl("), HasSubstr("0xae80"),
                    HasSubstr("its policy vmm_vcpu does not allow"), HasSubstr("\"ioctl: 1\"")));
}

TEST_F(NativeFilterTest, ADeniedCallOfTheControlLoopEndsTheVmAndIsNamed) {
  EXPECT_THAT(errors_of_killed(policies_with("vmm_control", "futex: 1\n")),
              AllOf(HasSubstr("control loop: this thread of the VMM called"),
                    HasSubstr("its policy vmm_control does not allow")));
}

TEST_F(NativeFilterTest, ADeniedCallOfTheRelayEndsTheVmAndIsNamed) {
  EXPECT_THAT(errors_of_killed(policies_with("vmm_relay", "futex: 1\n")),
              AllOf(HasSubstr("interrupt relay: this thread of the VMM called"),
                    HasSubstr("its policy vmm_relay does not allow")));
}

TEST_F(NativeFilterTest, LoggedFailuresOfTheVmmDoNotEndIt) {
  const std::string policies = policies_with("vmm_vcpu", "futex: 1\n");
  VmProcess vm(arguments({"--seccomp-policy-dir", policies, "--seccomp-log-failures"}));
  start(vm);
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 0);
}

}  // namespace
}  // namespace crosvm::test
