#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "proc_facts.h"
#include "vm_process.h"

namespace crosvm::test {

/// VMs in a sandbox, with a kernel of a few instructions.
/// No process can have it, and a signal to it goes nowhere, as one to -1 would not.
constexpr pid_t kNobody = std::numeric_limits<pid_t>::max();

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
    ASSERT_TRUE(vm.wait_for("!", std::chrono::seconds(30))) << vm.errors();
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
    return kNobody;
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
    return kNobody;
  }

  std::string refusal(const std::vector<std::string>& flags, int status = 1) {
    VmProcess vm(arguments(flags));
    EXPECT_EQ(vm.wait_exit(std::chrono::seconds(60)), status);
    EXPECT_THAT(scratch_.entries(), testing::Not(testing::Contains("vm.sock")));
    return vm.errors();
  }

  ScratchDirectory scratch_;
  std::string socket_ = scratch_.path() + "/vm.sock";
  pid_t spawner_ = kNobody;
  std::vector<pid_t> workers_;
  std::vector<pid_t> all_;
};

}  // namespace crosvm::test
