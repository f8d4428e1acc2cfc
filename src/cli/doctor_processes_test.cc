#include "cli/doctor_processes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"

namespace crosvm::doctor {
namespace {

using testing::AllOf;
using testing::HasSubstr;

ProcessFacts process(pid_t pid, pid_t parent, const std::string& name) {
  ProcessFacts facts;
  facts.pid = pid;
  facts.parent = parent;
  facts.name = name;
  facts.threads = {{.tid = pid, .name = name, .has_filter = true, .filters = 1}};
  facts.capabilities = {{"CapEff", 0}, {"CapBnd", 0xff}};
  facts.namespaces = {{"net", "net:[1]"}, {"user", "user:[1]"}};
  facts.descriptors.emplace();
  return facts;
}

/// A VMM, its spawner and a disk.
class DoctorProcessesTest : public testing::Test {
 protected:
  DoctorProcessesTest() {
    tree_ = {process(10, 1, "vm1"), process(11, 10, "crosvm-spawner"), process(12, 11, "block0")};
    tree_[2].namespaces = {{"net", "net:[2]"}, {"user", "user:[2]"}};
    vmm().descriptors = {{.number = 3, .object = "socket:[100]", .identity = 100},
                         {.number = 4, .object = "anon_inode:[eventfd]", .identity = 7},
                         {.number = 5, .object = "anon_inode:[eventfd]", .identity = 8}};
    block().descriptors = {{.number = 4, .object = "socket:[101]", .identity = 101},
                           {.number = 5, .object = "anon_inode:[eventpoll]", .watches = {6, 8}},
                           {.number = 6, .object = "anon_inode:[eventfd]", .identity = 7},
                           {.number = 7, .object = "anon_inode:[eventfd]", .identity = 8},
                           {.number = 8, .object = "anon_inode:[eventfd]", .identity = 9},
                           {.number = 9, .object = "/tmp/disk"}};
  }
  ProcessFacts& vmm() { return tree_[0]; }
  ProcessFacts& block() { return tree_[2]; }
  DescriptorPurposes purposes() const { return {tree_, {{100, 101}, {101, 100}}}; }
  std::string purpose(const ProcessFacts& process, size_t index) {
    return purposes().of(process, (*process.descriptors)[index]);
  }

  std::vector<ProcessFacts> tree_;
};

TEST_F(DoctorProcessesTest, WhatIsSharedTellsWhatADescriptorIsFor) {
  EXPECT_EQ(purpose(vmm(), 0), "socket to the device block0 (pid 12)");
  EXPECT_EQ(purpose(vmm(), 1), "kick or interrupt of the device block0");
  EXPECT_EQ(purpose(block(), 0), "vhost-user");
  EXPECT_EQ(purpose(block(), 2), "the guest kicks a queue");
  EXPECT_EQ(purpose(block(), 3), "interrupts the guest");
  EXPECT_EQ(purpose(block(), 4), "wakes its event loop");
  EXPECT_EQ(purpose(block(), 5), "what the device serves");
}

TEST_F(DoctorProcessesTest, PeopleReadWhatDiffersFromTheVmm) {
  const std::string text = processes_text(tree_, purposes());
  EXPECT_THAT(text, AllOf(HasSubstr("VMM: pid 10"), HasSubstr("spawner: pid 11"),
                          HasSubstr("device block0: pid 12, user 0\n  namespaces     net, user\n"),
                          HasSubstr("capabilities   none"), HasSubstr("12 block0 (filtered)")));
}

TEST_F(DoctorProcessesTest, WhatThisUserMayNotSeeIsSaidSo) {
  block().namespaces.reset();
  block().descriptors.reset();
  EXPECT_THAT(processes_text(tree_, purposes()),
              AllOf(HasSubstr("namespaces     may not be seen by this user"),
                    HasSubstr("descriptors    may not be seen by this user")));
  auto json = Json::parse(processes_json(tree_, purposes()));
  ASSERT_TRUE(json);
  const Json& last = (*json->find("processes")->items())[2];
  EXPECT_TRUE(last.find("namespaces")->is_null());
  EXPECT_TRUE(last.find("descriptors")->is_null());
}

TEST_F(DoctorProcessesTest, TheReportForProgramsIsVersioned) {
  auto json = Json::parse(processes_json(tree_, purposes()));
  ASSERT_TRUE(json);
  EXPECT_EQ(json->find("version")->as_uint(), 1u);
  const Json& block = (*json->find("processes")->items())[2];
  EXPECT_EQ(block.find("role")->as_string(), "device block0");
  EXPECT_EQ(block.find("capabilities")->as_uint(), 0u);
  EXPECT_EQ((*block.find("threads")->items())[0].find("filters")->as_uint(), 1u);
  EXPECT_EQ(block.find("descriptors")->items()->size(), 6u);
}

TEST_F(DoctorProcessesTest, AVmWithoutASandboxIsOneProcess) {
  tree_.resize(1);
  EXPECT_THAT(processes_text(tree_, purposes()), HasSubstr("--disable-sandbox"));
}

TEST(ProcessFactsTest, ThisProcessAndItsSocketsAreSeen) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const Fd one(ends[0]);
  const Fd other(ends[1]);
  const auto tree = process_tree(::getpid());
  ASSERT_FALSE(tree.empty());
  EXPECT_EQ(tree[0].pid, ::getpid());
  EXPECT_EQ(tree[0].user, ::geteuid());
  EXPECT_FALSE(tree[0].threads.empty());
  EXPECT_FALSE(tree[0].limits.empty());
  ASSERT_TRUE(tree[0].descriptors && tree[0].namespaces);
  struct stat first{};
  struct stat second{};
  ASSERT_EQ(::fstat(one.get(), &first), 0);
  ASSERT_EQ(::fstat(other.get(), &second), 0);
  const auto peers = socket_peers();
  if (peers.empty()) GTEST_SKIP() << "this kernel does not tell the peers of sockets";
  ASSERT_TRUE(peers.contains(first.st_ino));
  EXPECT_EQ(peers.at(first.st_ino), second.st_ino);
}

}  // namespace
}  // namespace crosvm::doctor
