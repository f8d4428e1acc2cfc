#include "jail/enter_jail.h"

#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/format.h"
#include "jail/jailed_child.h"

namespace crosvm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

/// What `look` finds in a jail; the error where it cannot be entered.
std::string in_jail(const std::function<std::string()>& look, const JailConfig& config = {}) {
  auto report = test::run_in_namespaces([&] {
    if (auto entered = enter_jail(config); !entered) return entered.error().what();
    return look();
  });
  EXPECT_EQ(report.status, 0);
  return report.text;
}

std::string outcome(long result) { return result < 0 ? ::strerrorname_np(errno) : "done"; }

std::string list(const char* path) {
  DIR* directory = ::opendir(path);
  if (!directory) return outcome(-1);
  std::string names;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names += name + " ";
  }
  ::closedir(directory);
  return names;
}

class JailDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + format_text("jail-{}", ::getpid());
    std::filesystem::create_directories(root_ = path_ + "/root");
    std::ofstream(path_ + "/inside") << "x";
  }
  void TearDown() override { std::filesystem::remove_all(path_); }

  std::string path_;
  std::string root_;  // an empty directory in it
};

/// What tells a directory from others.
std::string identity(const char* path) {
  struct stat status = {};
  if (::stat(path, &status) != 0) return outcome(-1);
  return format_text("{} {}", status.st_dev, status.st_ino);
}

TEST(EnterJailTest, TheRootIsEmptyAndReadOnly) {
  EXPECT_EQ(in_jail([] { return "[" + list("/") + "]"; }), "[]");
  EXPECT_EQ(in_jail([] { return "[" + list("..") + "]"; }), "[]");
  EXPECT_EQ(in_jail([] { return outcome(::open("/x", O_CREAT | O_RDWR, 0600)); }), "EROFS");
  EXPECT_EQ(in_jail([] { return outcome(::open("/proc/self/status", O_RDONLY)); }), "ENOENT");
  EXPECT_EQ(in_jail([] { return outcome(::open("/etc/passwd", O_RDONLY)); }), "ENOENT");
  constexpr unsigned long kFlags = ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC;
  EXPECT_EQ(in_jail([] {
              struct statvfs status = {};
              (void)::statvfs("/", &status);
              return std::to_string(status.f_flag & kFlags);
            }),
            std::to_string(kFlags));
}

TEST(EnterJailTest, TheDirectoryBeforeIsLeft) {
  EXPECT_EQ(in_jail([] {
              char here[64] = {};
              return std::string(::getcwd(here, sizeof(here)) ? here : "none");
            }),
            "/");
}

TEST(EnterJailTest, NoCapabilityIsLeftInAnySet) {
  EXPECT_EQ(in_jail([] {
              __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
              __user_cap_data_struct sets[2] = {};
              ::syscall(SYS_capget, &header, sets);
              uint32_t any = 0;
              for (const auto& set : sets) any |= set.effective | set.permitted | set.inheritable;
              for (unsigned long each = 0; each < 64; ++each) {
                any |= ::prctl(PR_CAPBSET_READ, each, 0, 0, 0) > 0;
                any |= ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, each, 0, 0) > 0;
              }
              return std::to_string(any);
            }),
            "0");
}

TEST(EnterJailTest, PrivilegesAreLocked) {
  EXPECT_EQ(in_jail([] { return std::to_string(::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); }), "1");
  EXPECT_EQ(in_jail([] { return std::to_string(::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)); }), "0");
  constexpr int kLocked = SECBIT_NOROOT | SECURE_ALL_LOCKS;
  EXPECT_EQ(
      in_jail([] { return std::to_string(::prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) & kLocked); }),
      std::to_string(kLocked));
}

TEST(EnterJailTest, NothingPrivilegedCanBeDone) {
  EXPECT_EQ(in_jail([] { return outcome(::mount("none", "/", "tmpfs", 0, nullptr)); }), "EPERM");
  EXPECT_EQ(in_jail([] { return outcome(::umount2("/", MNT_DETACH)); }), "EPERM");
  EXPECT_EQ(in_jail([] { return outcome(::sethostname("x", 1)); }), "EPERM");
  EXPECT_EQ(in_jail([] { return outcome(::chroot("/")); }), "EPERM");
  EXPECT_EQ(in_jail([] { return outcome(::kill(::getppid() + 2, 0)); }), "ESRCH");
  EXPECT_EQ(in_jail([] { return outcome(::ptrace(PTRACE_SEIZE, 2, nullptr, nullptr)); }), "ESRCH");
}

TEST(EnterJailTest, LimitsAreAsConfigured) {
  const JailConfig config{
      .name = "a-name-that-is-long", .descriptors = 77, .file_bytes = 0, .starts_threads = false};
  auto limit = [&](__rlimit_resource resource) {
    return in_jail(
        [resource] {
          rlimit value = {};
          ::getrlimit(resource, &value);
          return format_text("{} {}", value.rlim_cur, value.rlim_max);
        },
        config);
  };
  EXPECT_EQ(limit(RLIMIT_NOFILE), "77 77");
  EXPECT_EQ(limit(RLIMIT_CORE), "0 0");
  EXPECT_EQ(limit(RLIMIT_FSIZE), "0 0");
  EXPECT_EQ(limit(RLIMIT_NPROC), "0 0");
#ifndef CROSVM_SANITIZE
  EXPECT_EQ(limit(RLIMIT_DATA), "268435456 268435456");
#endif
}

TEST(EnterJailTest, NamesAreItsOwn) {
  EXPECT_EQ(in_jail(
                [] {
                  char name[16] = {};
                  ::prctl(PR_GET_NAME, name);
                  utsname system = {};
                  ::uname(&system);
                  return format_text("{} on {}", name, system.nodename);
                },
                {.pivot_root = {}, .name = "a-name-that-is-long"}),
            "a-name-that-is- on crosvm");
}

TEST(EnterJailTest, OpenDescriptorsStay) {
  Fd file(::open("/proc/self/comm", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(in_jail([&] {
              char byte = 0;
              return std::to_string(::read(file.get(), &byte, 1));
            }),
            "1");
}

TEST_F(JailDirectoryTest, APivotRootIsTheRootButReadOnly) {
  const JailConfig config{.pivot_root = root_, .name = "x"};
  const std::string root = identity(root_.c_str());
  EXPECT_EQ(in_jail([] { return identity("/"); }, config), root);
  EXPECT_EQ(in_jail([] { return identity("/.."); }, config), root);
  EXPECT_EQ(in_jail([] { return outcome(::open("/x", O_CREAT | O_RDWR, 0600)); }, config), "EROFS");
}

TEST_F(JailDirectoryTest, APivotRootThatCannotBeIsAnError) {
  auto error = [](const std::string& path) {
    return in_jail([] { return std::string("entered"); }, {.pivot_root = path, .name = "x"});
  };
  EXPECT_THAT(error("relative"), AllOf(StartsWith("entering the sandbox: --pivot-root relative: "),
                                       HasSubstr("absolute"), HasSubstr("leave the option out")));
  EXPECT_THAT(error("//"), HasSubstr("other than /"));
  EXPECT_THAT(error(""), HasSubstr("not the absolute path"));
  EXPECT_THAT(error(path_ + "/gone"), HasSubstr("No such file"));
  EXPECT_THAT(error(path_ + "/inside"), HasSubstr("not a directory"));
  EXPECT_THAT(error(path_), AllOf(HasSubstr("--pivot-root " + path_ + ": the directory is not"),
                                  HasSubstr("give an empty directory")));
  EXPECT_THAT(error("/proc"), HasSubstr("is not empty"));
}

TEST_F(JailDirectoryTest, APivotRootThatOnlyAnotherUserMayEnterIsNamed) {
  constexpr uid_t kAnother = 65534;
  if (::chown(root_.c_str(), kAnother, kAnother) != 0) GTEST_SKIP() << "needs root";
  ::chmod(root_.c_str(), 0700);
  const JailConfig config{.pivot_root = root_, .name = "x"};
  EXPECT_THAT(in_jail([] { return std::string("entered"); }, config),
              AllOf(HasSubstr("--pivot-root " + root_), HasSubstr("Permission denied"),
                    HasSubstr("list and enter"), testing::Not(HasSubstr("Docker"))));
}

TEST(EnterJailTest, OutsideOwnNamespacesItIsAnErrorAndNoDowngrade) {
  auto report = test::run_in_namespaces([] {
    // What is left of the capabilities in a process that has dropped them.
    __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    __user_cap_data_struct none[2] = {};
    ::syscall(SYS_capset, &header, none);
    auto entered = enter_jail({});
    return entered ? std::string("entered") : entered.error().what();
  });
  EXPECT_THAT(report.text, AllOf(StartsWith("entering the sandbox: "), HasSubstr("not permitted"),
                                 HasSubstr("--disable-sandbox")));
}

}  // namespace
}  // namespace crosvm
