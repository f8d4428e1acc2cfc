#include "jail/seccomp_filter.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <latch>
#include <memory>
#include <thread>

#include "base/format.h"
#include "jail/denied_call.h"
#include "jail/seccomp_compile.h"
#include "jail/seccomp_policy.h"
#include "jail/worker_policy.h"

namespace crosvm {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

/// What the tests' own processes need whatever the build.
constexpr char kBase[] = "exit_group: 1\nwrite: 1\nmunmap: 1\nfutex: 1\nexit: 1\n";

SeccompProgram compile(const std::string& text, SeccompDefault action) {
  auto policy =
      parse_seccomp_policy("test.policy", host_policy_arch(),
                           [&](const std::string&) -> Result<std::string> { return kBase + text; });
  EXPECT_TRUE(policy) << policy.error().what();
  auto code = compile_seccomp_policy(*policy, host_policy_arch());
  EXPECT_TRUE(code) << code.error().what();
  SeccompProgram program = SeccompProgram::compiled(*std::move(code));
  program.set_default(action);
  return program;
}

/// Exit status of a child under `program`; 128 and more: the signal that ended it.
int run_under(const SeccompProgram& program, const std::function<int()>& act) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!install_seccomp(program, {})) ::_exit(99);
    ::syscall(SYS_exit_group, act());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int errno_of(long result) { return result < 0 ? errno : 0; }

class PolicyDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + format_text("policies-{}", ::getpid());
    std::filesystem::create_directory(path_);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }

  void write(const std::string& name, std::string_view bytes) {
    std::ofstream(path_ + "/" + name, std::ios::binary) << bytes;
  }
  void write_code(const std::string& name, const std::vector<sock_filter>& code) {
    write(name, {reinterpret_cast<const char*>(code.data()), code.size() * sizeof(sock_filter)});
  }

  std::string path_;
};

TEST(SeccompFilterTest, ListedCallsAreMadeAndOthersKill) {
  auto program = compile("getppid: 1\n", SeccompDefault::kKillProcess);
  EXPECT_EQ(run_under(program, [] { return ::syscall(SYS_getppid) > 0 ? 0 : 1; }), 0);
  EXPECT_EQ(run_under(program, [] { return static_cast<int>(::syscall(SYS_getuid)); }),
            128 + SIGSYS);
}

TEST(SeccompFilterTest, ArgumentsAndErrorsAreJudgedByTheKernel) {
  auto program =
      compile("dup3: arg2 == O_CLOEXEC\nopenat: return EXDEV\n", SeccompDefault::kKillProcess);
  EXPECT_EQ(run_under(program, [] { return errno_of(::syscall(SYS_dup3, 2, 9, O_CLOEXEC)); }), 0);
  EXPECT_EQ(run_under(program, [] { return errno_of(::syscall(SYS_dup3, 2, 9, 0)); }),
            128 + SIGSYS);
  EXPECT_EQ(run_under(program, [] { return errno_of(::syscall(SYS_openat, 0, "/", 0)); }), EXDEV);
}

TEST(SeccompFilterTest, LoggingLetsCallsGoOn) {
  auto program = compile("", SeccompDefault::kLog);
  EXPECT_EQ(run_under(program, [] { return ::syscall(SYS_getppid) > 0 ? 0 : 1; }), 0);
}

TEST(SeccompFilterTest, TheListenerHearsOfDeniedCalls) {
  auto program = compile("sendmsg: 1\n", SeccompDefault::kNotify);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Fd hear(ends[0]);
  Fd tell(ends[1]);
  // A process that shares our descriptors: its listener is ours.
  const auto child = static_cast<pid_t>(
      ::syscall(SYS_clone, static_cast<long>(CLONE_FILES | SIGCHLD), 0L, 0L, 0L, 0L));
  if (child == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    auto listener = install_seccomp(program, {.all_threads = false, .listener = true});
    int number = listener ? listener->release() : -1;
    (void)!::write(tell.get(), &number, sizeof(number));
    int result = errno_of(::syscall(SYS_getppid));
    (void)!::write(tell.get(), &result, sizeof(result));
    ::syscall(SYS_getuid);
    ::syscall(SYS_exit_group, 0);
  }
  ASSERT_GT(child, 0);
  int number = -1;
  ASSERT_EQ(::read(hear.get(), &number, sizeof(number)), ssize_t{sizeof(number)});
  Fd listener(number);
  ASSERT_TRUE(listener);
  EXPECT_EQ(::fcntl(listener.get(), F_GETFD), FD_CLOEXEC);
  seccomp_notif heard = {};
  ASSERT_EQ(::ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_RECV, &heard), 0);
  EXPECT_EQ(heard.data.nr, SYS_getppid);
  seccomp_notif_resp answer = {.id = heard.id, .val = 0, .error = -EDOM, .flags = 0};
  ASSERT_EQ(::ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_SEND, &answer), 0);
  int result = 0;
  ASSERT_EQ(::read(hear.get(), &result, sizeof(result)), ssize_t{sizeof(result)});
  EXPECT_EQ(result, EDOM);

  // The kernel refuses memory that is not zero, as what was freed before is not.
  std::vector<std::unique_ptr<char[]>> used;
  for (int i = 0; i < 16; ++i) {
    used.push_back(std::make_unique<char[]>(80 + i));
    std::fill_n(used.back().get(), 80 + i, 'x');
  }
  used.clear();
  auto denied = receive_denied_call(listener);
  ASSERT_TRUE(denied) << denied.error().what();
  EXPECT_EQ(denied->name, "getuid");
  ::kill(child, SIGKILL);
  EXPECT_EQ(::waitpid(child, nullptr, 0), child);
}

TEST(SeccompFilterTest, AllThreadsGetIt) {
  auto program = compile("getppid: return EDOM\n", SeccompDefault::kLog);
  const pid_t child = ::fork();
  if (child == 0) {
    std::latch ready(1);
    std::latch installed(1);
    int seen = 0;
    std::thread other([&] {
      ready.count_down();
      installed.wait();
      seen = errno_of(::syscall(SYS_getppid));
    });
    ready.wait();
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    auto done = install_seccomp(program, {.all_threads = true, .listener = false});
    installed.count_down();
    other.join();
    ::_exit(done && seen == EDOM ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(SeccompFilterTest, WhoMayGainPrivilegesMayNotInstall) {
  auto program = compile("", SeccompDefault::kLog);
  const pid_t child = ::fork();
  if (child == 0) {
    // Root may, but not without capabilities.
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(1);
    auto done = install_seccomp(program, {});
    ::_exit(!done && done.error().what().find("no_new_privs") != std::string::npos ? 0 : 2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(SeccompFilterTest, ThePoliciesOfDevicesAndOfTheVmmAreCompiledIn) {
  auto names = embedded_seccomp_policies();
  EXPECT_TRUE(std::ranges::is_sorted(names));
  for (const char* name : {"block_device", "serial_device", "rng_device", "block_device_vhost_user",
                           "serial_device_vhost_user", "rng_device_vhost_user", "vsock_device",
                           "vsock_device_vhost_user", "net_device", "net_device_vhost_user",
                           "vmm_vcpu", "vmm_control", "vmm_relay"}) {
    EXPECT_THAT(names, Contains(name));
    EXPECT_TRUE(find_seccomp_policy(name, {})) << name;
  }
  auto unknown = find_seccomp_policy("no_such", {});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), std::errc::no_such_file_or_directory);
  EXPECT_THAT(unknown.error().what(), HasSubstr("no_such"));
}

TEST(SeccompFilterTest, NoActionButTheDefaultIsExchanged) {
  auto killing = find_seccomp_policy("block_device", {});
  auto asking = find_seccomp_policy("block_device",
                                    {.directory = std::nullopt, .action = SeccompDefault::kNotify});
  ASSERT_TRUE(killing && asking);
  ASSERT_EQ(killing->code().size(), asking->code().size());
  size_t exchanged = 0;
  for (size_t i = 0; i < killing->code().size(); ++i) {
    const sock_filter& before = killing->code()[i];
    const sock_filter& after = asking->code()[i];
    if (before.k == after.k) continue;
    ++exchanged;
    EXPECT_EQ(before.k, SECCOMP_RET_KILL_PROCESS);
    EXPECT_EQ(after.k, SECCOMP_RET_USER_NOTIF);
  }
  EXPECT_GT(exchanged, 10u);
  // Calls of another machine's kind kill under a supervisor too.
  EXPECT_EQ(asking->code()[2].k, SECCOMP_RET_KILL_PROCESS);
}

TEST_F(PolicyDirectoryTest, ADirectoryReplacesWhatIsCompiledIn) {
  write("rng_device.policy", std::string("@include /usr/share/policy/crosvm/base\ngetppid: 1\n"));
  write("base", kBase);
  auto program = find_seccomp_policy("rng_device", {.directory = path_});
  ASSERT_TRUE(program) << program.error().what();
  EXPECT_EQ(run_under(*program, [] { return ::syscall(SYS_getppid) > 0 ? 0 : 1; }), 0);
  auto missing = find_seccomp_policy("block_device", {.directory = path_});
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().what(), HasSubstr(path_ + "/block_device.policy"));
}

TEST_F(PolicyDirectoryTest, ACompiledFileIsUsedUnlessFailuresAreLogged) {
  write("a.policy", kBase);
  write_code("a.bpf", {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)});
  auto compiled = find_seccomp_policy("a", {.directory = path_});
  ASSERT_TRUE(compiled) << compiled.error().what();
  EXPECT_EQ(compiled->code().size(), 1u);
  auto logging = find_seccomp_policy("a", {.directory = path_, .action = SeccompDefault::kLog});
  ASSERT_TRUE(logging) << logging.error().what();
  EXPECT_GT(logging->code().size(), 1u);
}

TEST_F(PolicyDirectoryTest, AMalformedCompiledFileIsAnError) {
  for (std::string_view bytes :
       {std::string_view(""), std::string_view("seven b"), std::string_view("sixteen and one b")}) {
    write("a.bpf", bytes);
    auto program = find_seccomp_policy("a", {.directory = path_});
    ASSERT_FALSE(program);
    EXPECT_THAT(program.error().what(), AllOf(HasSubstr("a.bpf"), HasSubstr("remove it")));
  }
}

TEST_F(PolicyDirectoryTest, WhatIsNoRegularFileIsAnError) {
  const std::string fifo = path_ + "/a.policy";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  std::filesystem::create_symlink("/dev/null", path_ + "/b.bpf");
  for (const char* name : {"a", "b"}) {
    auto program = find_seccomp_policy(name, {.directory = path_});
    ASSERT_FALSE(program) << name;
    EXPECT_THAT(program.error().what(),
                AllOf(HasSubstr(path_ + "/" + name + "."), HasSubstr("no regular file")));
  }
}

TEST_F(PolicyDirectoryTest, APolicyOfAWorkerThatMayNotSpeakIsRefused) {
  const SeccompPolicySource asking{.directory = path_, .action = SeccompDefault::kNotify};
  const SeccompPolicySource logging{.directory = path_, .action = SeccompDefault::kLog};
  for (const char* rule : {"", "sendmsg: return EPERM\n", "sendmsg: arg0 == 3\n"}) {
    write("a.policy", std::string(kBase) + rule);
    auto refused = find_worker_policy("a", asking);
    ASSERT_FALSE(refused) << rule;
    EXPECT_EQ(refused.error().code(), std::errc::invalid_argument);
    EXPECT_THAT(refused.error().what(),
                AllOf(HasSubstr(path_ + "/a.policy"), HasSubstr("\"sendmsg: 1\"")));
    EXPECT_TRUE(find_seccomp_policy("a", asking)) << "a thread of the VMM need not send";
  }
  write("a.policy", kBase);
  EXPECT_TRUE(find_worker_policy("a", logging)) << "a denied call goes on";
  write("a.policy", std::string(kBase) + "sendmsg: arg2 == MSG_NOSIGNAL\n");
  EXPECT_TRUE(find_worker_policy("a", asking));
}

TEST_F(PolicyDirectoryTest, ACompiledPolicyOfAWorkerIsJudgedByWhatItDoes) {
  const SeccompPolicySource asking{.directory = path_, .action = SeccompDefault::kNotify};
  write_code("a.bpf", {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)});
  auto refused = find_worker_policy("a", asking);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what(), AllOf(HasSubstr(path_ + "/a.bpf"), HasSubstr("sendmsg: 1"),
                                            HasSubstr("compile it again")));
  write_code("a.bpf", {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)});
  EXPECT_TRUE(find_worker_policy("a", asking));
  // An instruction that is not understood here: the kernel's to judge.
  write_code("a.bpf", {BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
                       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)});
  EXPECT_TRUE(find_worker_policy("a", asking));
}

}  // namespace
}  // namespace crosvm
