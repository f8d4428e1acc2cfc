#include "jail/jail_namespaces.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <string>
#include <string_view>

#include "base/format.h"
#include "base/start_error.h"

namespace crosvm {
namespace {

constexpr uint64_t kNamespaces =
    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

// Sandbox hints -------------------------------------------------------------------------------

/// A switch that forbids namespaces when it has `value`.
struct Sysctl {
  std::string_view name;
  std::string_view path;
  char value;
  std::string_view fix;
};
constexpr Sysctl kSysctls[] = {
    {"kernel.unprivileged_userns_clone", "/proc/sys/kernel/unprivileged_userns_clone", '0',
     "set it to 1"},
    {"user.max_user_namespaces", "/proc/sys/user/max_user_namespaces", '0', "raise it"},
    {"user.max_net_namespaces", "/proc/sys/user/max_net_namespaces", '0', "raise it"},
    {"user.max_pid_namespaces", "/proc/sys/user/max_pid_namespaces", '0', "raise it"},
    {"user.max_mnt_namespaces", "/proc/sys/user/max_mnt_namespaces", '0', "raise it"},
    {"user.max_ipc_namespaces", "/proc/sys/user/max_ipc_namespaces", '0', "raise it"},
    {"user.max_uts_namespaces", "/proc/sys/user/max_uts_namespaces", '0', "raise it"},
    {"user.max_cgroup_namespaces", "/proc/sys/user/max_cgroup_namespaces", '0', "raise it"},
    {"kernel.apparmor_restrict_unprivileged_userns",
     "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", '1',
     "set it to 0, or give crosvm an AppArmor profile with the rule userns"},
};

/// The first character of a file of digits; 0 where there is none.
char first_digit(std::string_view path) {
  std::array<std::byte, 1> digit = {};
  auto file = open_path(std::string(path), O_RDONLY);
  if (!file || read_full(*file, digit, "").value_or(0) != 1) return 0;
  return static_cast<char>(digit[0]);
}

std::string cause_of(int error) {
  if (error == EAGAIN) return std::string(kTooManyProcesses);
  if (error == ENOMEM) {
    return "memory is used up; raise RLIMIT_AS (ulimit -v), or free memory";
  }
  for (const Sysctl& each : kSysctls) {
    if (first_digit(each.path) == each.value) {
      return format_text("the sysctl {} is {}; {}", each.name, each.value, each.fix);
    }
  }
  switch (error) {
    case ENOSPC:
    case EUSERS:
      return "too many namespaces exist or are nested; raise the sysctls user.max_*_namespaces";
    case EINVAL:
      return "the kernel lacks a kind of namespace; it needs Linux 5.7 with user, PID, mount, IPC, "
             "UTS and cgroup namespaces";
    default:
      return "a container or service without CAP_SYS_ADMIN forbids it by its seccomp or AppArmor "
             "profile, or this is a chroot; allow user namespaces and mounts there (Docker: "
             "--security-opt seccomp=unconfined --security-opt apparmor=unconfined)";
  }
}

// In the child, between clone and exec --------------------------------------------------------

/// What a child tells of a failure before it executes.
struct Failure {
  int error;
  int step;  // of kSteps
};
constexpr const char* kSteps[] = {"/proc/self/setgroups", "/proc/self/uid_map",
                                  "/proc/self/gid_map"};

/// "0 ID 1", made before the clone.
std::string id_map(unsigned id) { return format_text("0 {} 1", id); }

int write_text(const char* path, const std::string& text) {
  int file = ::open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return errno;
  ssize_t put = ::write(file, text.data(), text.size());
  int error = put < 0 ? errno : 0;
  ::close(file);
  return error;
}

[[noreturn]] void live_as_child(const std::array<std::string, 3>& maps, int told,
                                const std::function<void()>& execute) {
  constexpr int kNotMapped = 126;
  constexpr int kNotExecuted = 127;
  for (int step = 0; step < 3; ++step) {
    int error = write_text(kSteps[step], maps[step]);
    if (error == 0) continue;
    const Failure failure{.error = error, .step = step};
    (void)!::write(told, &failure, sizeof(failure));
    ::_exit(kNotMapped);
  }
  ::close(told);  // the parent hears of success
  execute();
  ::_exit(kNotExecuted);
}

/// Its own copy of our memory: it goes on where we are.
long clone_copying(int& pidfd, const std::function<void()>& live) {
  clone_args request = {};
  request.flags = kNamespaces | CLONE_PIDFD;
  request.pidfd = reinterpret_cast<uintptr_t>(&pidfd);
  request.exit_signal = SIGCHLD;
  const long pid = ::syscall(__NR_clone3, &request, sizeof(request));
  if (pid == 0) live();
  return pid;
}

/// In our memory, on a stack of its own within ours, which stays as it is until the child is out
/// of our memory.
long clone_sharing(int& pidfd, const std::function<void()>& live) {
  constexpr size_t kStackBytes = 16384;
  alignas(16) std::array<std::byte, kStackBytes> stack __attribute__((uninitialized));
  auto begin = [](void* argument) {
    (*static_cast<const std::function<void()>*>(argument))();
    return 0;
  };
  return ::clone(begin, stack.data() + stack.size(),
                 static_cast<int>(kNamespaces | CLONE_PIDFD | CLONE_VM | CLONE_VFORK | SIGCHLD),
                 const_cast<std::function<void()>*>(&live), &pidfd);
}

void reap(pid_t pid) {
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
}

}  // namespace

std::string sandbox_hint(int error) {
  return format_text(
      ": {}; or give --disable-sandbox, with which devices may do all that crosvm may",
      cause_of(error));
}

Result<NamespacedProcess> clone_into_namespaces(const std::function<void()>& execute,
                                                ChildMemory memory) {
  constexpr std::string_view kObject = "namespaces for a device process";
  const std::array<std::string, 3> maps = {"deny", id_map(::geteuid()), id_map(::getegid())};
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(Error::from_errno("creating", "a pipe"));
  Fd hear(ends[0]);
  Fd tell(ends[1]);

  int pidfd = -1;
  const std::function<void()> live = [&] { live_as_child(maps, tell.get(), execute); };
#ifdef CROSVM_SANITIZE
  memory = ChildMemory::kCopy;  // theirs is not to be shared
#endif
  const long pid =
      memory == ChildMemory::kShared ? clone_sharing(pidfd, live) : clone_copying(pidfd, live);
  if (pid < 0) {
    int error = errno;
    Error what = Error::from_errno("creating", kObject, error);
    return fail(Error(what.code(), what.what() + sandbox_hint(error)));
  }
  NamespacedProcess process{.pid = static_cast<pid_t>(pid), .pidfd = Fd(pidfd)};

  tell = Fd();
  Failure failure = {};
  auto heard = read_full(hear, std::as_writable_bytes(std::span(&failure, 1)), "a child's pipe");
  if (heard && *heard == 0) return process;
  reap(process.pid);
  TRY(std::move(heard));
  Error what = Error::from_errno("writing", kSteps[failure.step], failure.error);
  return fail(Error(what.code(), format_text("creating {}: {}{}", kObject, what.what(),
                                             sandbox_hint(failure.error))));
}

}  // namespace crosvm
