#include "cli/doctor_host.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/companion_program.h"
#include "base/fd.h"
#include "cli/start_program.h"
#include "hypervisor/kvm/kvm.h"

namespace crosvm::doctor {
namespace {

int open_device(const std::string& node) {
  Fd fd(::open(node.c_str(), O_RDWR | O_CLOEXEC));
  return fd ? 0 : errno;
}

/// Being let into a user namespace is not enough: a security module may take its capabilities away.
int use_namespaces(void*) {
  return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 ? 0 : errno;
}

int make_namespaces() {
  constexpr int kNamespaces = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET |
                              CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
  alignas(16) static std::array<char, 64 * 1024> stack;
  pid_t child =
      ::clone(use_namespaces, stack.data() + stack.size(), kNamespaces | SIGCHLD, nullptr);
  if (child < 0) return errno;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return errno;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;  // killed: by a policy
}

int seccomp_user_notif() {
  uint32_t action = SECCOMP_RET_USER_NOTIF;
  return ::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0 ? 0 : errno;
}

int set_up_io_uring() {
  io_uring_params params{};
  Fd ring(static_cast<int>(::syscall(SYS_io_uring_setup, 4, &params)));
  return ring ? 0 : errno;
}

Result<StockGuestProbe> probe_kvm() {
  auto kvm = TRY(open_kvm("/dev/kvm"));
  return probe_stock_guest(*kvm);
}

bool has_capability(unsigned capability) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) return false;
  return (data[capability / 32].effective >> (capability % 32) & 1) != 0;
}

std::vector<uint32_t> own_groups() {
  std::vector<gid_t> groups(static_cast<size_t>(std::max(::getgroups(0, nullptr), 0)));
  int count = ::getgroups(static_cast<int>(groups.size()), groups.data());
  groups.resize(static_cast<size_t>(std::max(count, 0)));
  groups.push_back(::getegid());
  return {groups.begin(), groups.end()};
}

uint64_t memlock_bytes() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return UINT64_MAX;
  }
  return limit.rlim_cur;
}

}  // namespace

std::optional<std::string> Host::read(const std::string& path) const {
  constexpr size_t kLongest = 64 * 1024;  // /proc/cpuinfo is longer: its first CPUs are enough
  auto file = open_path(root + path, O_RDONLY);
  if (!file) return std::nullopt;
  std::string text(kLongest, '\0');
  auto size = read_full(*file, std::as_writable_bytes(std::span(text)), path);
  if (!size) return std::nullopt;
  text.resize(*size);
  constexpr std::string_view kBlanks = " \t\n";
  size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

bool Host::exists(const std::string& path) const {
  return ::access((root + path).c_str(), F_OK) == 0;
}

Host this_host() {
  return {.root = "",
          .groups = own_groups(),
          .may_lock_memory = has_capability(CAP_IPC_LOCK),
          .memlock_bytes = memlock_bytes(),
          .open_device = open_device,
          .make_namespaces = make_namespaces,
          .seccomp_user_notif = seccomp_user_notif,
          .set_up_io_uring = set_up_io_uring,
          .find_program = [](std::string_view name) { return find_companion_program(name); },
          .start_program = start_program,
          .probe_stock_guest = probe_kvm};
}

}  // namespace crosvm::doctor
