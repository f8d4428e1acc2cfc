#include "jail/jail_namespaces.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/limits.h>

#include <cerrno>
#include <csignal>

#include "base/format.h"
#include "jail/jailed_child.h"

namespace crosvm {
namespace {

using test::run_in_namespaces;
using testing::HasSubstr;

std::string namespace_id(const char* name) {
  char target[PATH_MAX] = {};
  const std::string path = format_text("/proc/self/ns/{}", name);
  if (::readlink(path.c_str(), target, sizeof(target) - 1) < 0) return "unknown";
  return target;
}

TEST(JailNamespacesTest, AChildIsRootAndFirstInItsOwn) {
  auto report = run_in_namespaces(
      [] { return format_text("pid {} uid {} gid {}", ::getpid(), ::getuid(), ::getegid()); });
  EXPECT_EQ(report.text, "pid 1 uid 0 gid 0");
  EXPECT_EQ(report.status, 0);
}

TEST(JailNamespacesTest, EachNamespaceButTheNetworkIsNew) {
  for (const char* name : {"user", "pid", "mnt", "ipc", "uts", "cgroup"}) {
    auto report = run_in_namespaces([name] { return namespace_id(name); });
    EXPECT_THAT(report.text, HasSubstr(name));
    EXPECT_NE(report.text, namespace_id(name));
  }
  EXPECT_EQ(run_in_namespaces([] { return namespace_id("net"); }).text, namespace_id("net"));
}

TEST(JailNamespacesTest, GroupsCannotBeSet) {
  auto report = run_in_namespaces([] {
    const gid_t group = 0;
    return std::to_string(::setgroups(1, &group) == 0 ? 0 : errno);
  });
  EXPECT_EQ(report.text, std::to_string(EPERM));
}

TEST(JailNamespacesTest, AChildThatExecutesNothingIs127) {
  auto process = clone_into_namespaces([] {});
  ASSERT_TRUE(process) << process.error().what();
  EXPECT_EQ(test::wait_for(*process), 127);
}

TEST(JailNamespacesTest, AChildInOurMemoryExecutesAndLeavesIt) {
  char* const arguments[] = {const_cast<char*>("sh"), const_cast<char*>("-c"),
                             const_cast<char*>("exit $((30 + $$ + $(id -u)))"), nullptr};
  char* const environment[] = {nullptr};
  auto process = clone_into_namespaces([&] { ::execve("/bin/sh", arguments, environment); },
                                       ChildMemory::kShared);
  ASSERT_TRUE(process) << process.error().what();
  EXPECT_EQ(test::wait_for(*process), 31);  // process 1, user 0

  auto none = clone_into_namespaces([] {}, ChildMemory::kShared);
  ASSERT_TRUE(none) << none.error().what();
  EXPECT_EQ(test::wait_for(*none), 127);
}

TEST(JailNamespacesTest, ThePidfdIsOfTheChild) {
  auto process = clone_into_namespaces([] { ::pause(); });
  ASSERT_TRUE(process) << process.error().what();
  EXPECT_EQ(::fcntl(process->pidfd.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(::kill(process->pid, SIGKILL), 0);
  EXPECT_EQ(test::wait_for(*process), 128 + SIGKILL);
}

TEST(JailNamespacesTest, WhereNoMoreMayBeNestedTheErrorSaysWhatToDo) {
  auto report = run_in_namespaces([] {
    // A limit of the namespace that the child is in: it may have none below it.
    Fd limit(::open("/proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC));
    if (::write(limit.get(), "0", 1) != 1) return std::string("the limit cannot be set");
    auto process = clone_into_namespaces([] {});
    return process ? std::string("it could be made") : process.error().what();
  });
  EXPECT_THAT(report.text, HasSubstr("creating namespaces for a device process: No space left"));
  EXPECT_THAT(report.text, HasSubstr("user.max_user_namespaces is 0; raise it"));
  EXPECT_THAT(report.text, HasSubstr("--disable-sandbox"));
}

}  // namespace
}  // namespace crosvm
