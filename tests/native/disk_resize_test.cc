// `crosvm disk resize` on a running VM, with a kernel that watches the configuration of its disk.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "sandboxed_vm.h"

namespace crosvm::test {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

class NativeResizeTest : public NativeWorkerTest {
 protected:
  /// The disk comes in PCI slot 1, where the payload looks for it.
  std::vector<std::string> watching(const std::vector<std::string>& disks,
                                    const std::vector<std::string>& flags = {}) {
    std::vector<std::string> all = {"--no-syslog", "run", "-m", "64", "-s", socket_};
    all.insert(all.end(), {"--serial", "type=stdout,hardware=debugcon"});
    all.insert(all.end(), {"--serial", "type=sink,num=1", "--no-rng"});
    for (const std::string& disk : disks) all.insert(all.end(), {"--block", disk});
    all.insert(all.end(), flags.begin(), flags.end());
    all.emplace_back(CROSVM_PAYLOADS "/payload_capacity");
    return all;
  }
  std::string path() const { return scratch_.path() + "/disk"; }

  struct Outcome {
    std::optional<int> status;
    std::string output;
    std::string errors;
  };
  Outcome resize(const std::string& index, uint64_t bytes) {
    VmProcess client({"--no-syslog", "disk", "resize", index, std::to_string(bytes), socket_});
    const auto status = client.wait_exit(seconds(60));
    return {status, client.output(), client.errors()};
  }
  void end(VmProcess& vm) {
    vm.signal(SIGTERM);
    EXPECT_EQ(vm.wait_exit(seconds(30)), 0) << vm.errors();
  }
};

class NativeResizeWayTest : public NativeResizeTest,
                            public testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(, NativeResizeWayTest,
                         testing::Values("--no-smt", "--disable-sandbox",
                                         "--restart-devices=block"),
                         [](const auto& flag) -> std::string {
                           if (flag.index == 0) return "Sandbox";
                           return flag.index == 1 ? "OneProcess" : "Restarting";
                         });

TEST_P(NativeResizeWayTest, TheGuestSeesTheNewSizeTheInterruptAndTheGeneration) {
  VmProcess vm(watching({path()}, {GetParam()}));
  ASSERT_TRUE(vm.wait_for("00B", seconds(30))) << vm.errors();
  Outcome grown = resize("0", 8 * kMiB);
  EXPECT_EQ(grown.status, 0) << grown.errors << vm.errors();
  EXPECT_EQ(grown.output, "");
  EXPECT_TRUE(vm.wait_for("21I", seconds(30))) << vm.output();
  EXPECT_EQ(std::filesystem::file_size(path()), 8 * kMiB);
  EXPECT_EQ(resize("0", 2 * kMiB).status, 0);
  EXPECT_TRUE(vm.wait_for("22C", seconds(30))) << vm.output();
  EXPECT_EQ(std::filesystem::file_size(path()), 2 * kMiB);
  end(vm);
}

TEST_F(NativeResizeTest, AKilledDiskComesBackWithTheNewSize) {
  VmProcess vm(watching({path()}, {"--restart-devices=block"}));
  ASSERT_TRUE(vm.wait_for("00B", seconds(30))) << vm.errors();
  ASSERT_EQ(resize("0", 4 * kMiB).status, 0);
  ASSERT_TRUE(vm.wait_for("21E", seconds(30)));
  spawner_ = children_of(vm.pid()).front();
  const pid_t former = children_of(spawner_).front();
  ::kill(former, SIGKILL);
  ASSERT_NE(successor("block0", former), kNobody);
  Outcome again = resize("0", 3 * kMiB);
  EXPECT_EQ(again.status, 0) << again.errors;
  EXPECT_TRUE(vm.wait_for("22D", seconds(30))) << vm.output() << " the size in between was none";
  end(vm);
}

/// cli.md 4.4: the errno is the reference's, the words are ours.
TEST_F(NativeResizeTest, WhatCannotBeIsSaidByTheClientAndInTheLog) {
  std::filesystem::resize_file(made_file("sealed"), kMiB);
  const std::string sealed = scratch_.path() + "/sealed";
  VmProcess vm(watching({path(), sealed + ",ro"}));
  ASSERT_TRUE(vm.wait_for("00B", seconds(30))) << vm.errors();
  Outcome missing = resize("2", 2 * kMiB);
  EXPECT_EQ(missing.status, 1);
  EXPECT_EQ(missing.output, "unexpected response: error: No such device (os error 19)\n");
  EXPECT_THAT(missing.errors, HasSubstr("the VM has no disk of that index"));
  Outcome read_only = resize("1", 2 * kMiB);
  EXPECT_EQ(read_only.status, 1);
  EXPECT_THAT(read_only.output, HasSubstr("(os error 30)"));
  EXPECT_THAT(read_only.errors, HasSubstr("the disk is read-only in this VM"));
  Outcome huge = resize("0", (uint64_t{1} << 62) + 512);  // than any file system has
  EXPECT_EQ(huge.status, 1);
  EXPECT_THAT(huge.output, HasSubstr("(os error 5)"));
  EXPECT_EQ(std::filesystem::file_size(path()), kMiB);
  end(vm);
  EXPECT_THAT(vm.errors(), AllOf(HasSubstr("2 devices of the kind 'block', and no number 2"),
                                 HasSubstr("block1: " + sealed + ": this VM has it for reading"),
                                 HasSubstr("block0: " + path() + ": changing its size from")));
}

}  // namespace
}  // namespace crosvm::test
