#include "cli/doctor_checks.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/format.h"
#include "cli/text_fields.h"
#include "devices/net/user_net_device.h"

namespace crosvm::doctor {
namespace {

constexpr const char* kOnlyUnsandboxed = "; guests run only with --disable-sandbox";

/// The name that /etc/group gives a group; "" when it has none.
std::string group_name(const Host& host, uint32_t id) {
  const std::string groups = host.read("/etc/group").value_or("");
  std::string wanted = format_text(":{}:", id);
  for (std::string_view line : lines_of(groups)) {
    size_t name_end = line.find(':');
    size_t id_start = name_end == std::string_view::npos ? name_end : line.find(':', name_end + 1);
    if (id_start != std::string_view::npos && line.compare(id_start, wanted.size(), wanted) == 0) {
      return std::string(line.substr(0, name_end));
    }
  }
  return "";
}

Check check_node(const Host& host, Check check, const char* module, const char* without) {
  int error = host.open_device(check.object);
  if (error == 0) {
    check.cause = "opens";
    return check;
  }
  check.status = Status::kLimit;
  if (error == EACCES || error == EPERM) {
    check.cause = format_text("this user may not open it: {}", without);
    check.fix = permission_fix(host, check.object);
  } else {
    check.cause = format_text("{}: {}", error_text(error), without);
    check.fix = format_text("sudo modprobe {}", module);
  }
  return check;
}

}  // namespace

std::string error_text(int error_number) { return std::generic_category().message(error_number); }

std::string permission_fix(const Host& host, const std::string& node) {
  struct stat status{};
  constexpr mode_t kGroupAccess = S_IRGRP | S_IWGRP;
  if (::stat((host.root + node).c_str(), &status) == 0 &&
      (status.st_mode & kGroupAccess) == kGroupAccess && status.st_gid != 0) {
    std::string group = group_name(host, status.st_gid);
    if (!group.empty()) {
      return format_text("sudo usermod -aG {} \"$USER\", then log in again", group);
    }
  }
  return format_text("sudo chown \"$USER\" {}", node);
}

Check check_user_namespaces(const Host& host) {
  Check check{.id = "user-namespaces", .object = "user namespaces", .cause = "can be made"};
  int error = host.make_namespaces();
  if (error == 0) return check;
  check.status = Status::kLimit;
  struct Setting {
    const char* path;
    const char* bad;
    const char* fix;
  };
  constexpr Setting kSettings[] = {
      {"/proc/sys/user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=16384"},
      {"/proc/sys/kernel/unprivileged_userns_clone", "0",
       "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
      {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
       "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
  };
  for (const Setting& setting : kSettings) {
    if (host.read(setting.path) != setting.bad) continue;
    check.cause = format_text("{} is {}{}", setting.path, setting.bad, kOnlyUnsandboxed);
    check.fix = setting.fix;
    return check;
  }
  check.cause = error_text(error) + kOnlyUnsandboxed;
  check.fix = error == EPERM || error == EACCES
                  ? "a container's policy forbids them: start it with --security-opt "
                    "seccomp=unconfined --security-opt apparmor=unconfined"
                  : "use a kernel built with CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS, "
                    "CONFIG_IPC_NS, CONFIG_UTS_NS and CONFIG_CGROUPS";
  return check;
}

Check check_seccomp(const Host& host) {
  Check check{.id = "seccomp", .object = "seccomp", .cause = "filters can report to a supervisor"};
  int error = host.seccomp_user_notif();
  if (error == 0) return check;
  check.status = Status::kLimit;
  if (error == EOPNOTSUPP) {
    check.cause = std::string("has no user notification (Linux 5.0)") + kOnlyUnsandboxed;
    check.fix = "boot Linux 5.0 or newer";
  } else {
    check.cause = error_text(error) + kOnlyUnsandboxed;
    check.fix =
        "use a kernel built with CONFIG_SECCOMP_FILTER, and a container policy that allows "
        "the seccomp system call";
  }
  return check;
}

Check check_io_uring(const Host& host) {
  Check check{.id = "io-uring", .object = "io_uring", .cause = "can be set up"};
  int error = host.set_up_io_uring();
  if (error == 0) return check;
  check.status = Status::kNote;
  std::string setting = host.read("/proc/sys/kernel/io_uring_disabled").value_or("0");
  if (setting != "0") {
    check.cause = format_text(
        "/proc/sys/kernel/io_uring_disabled is {}; disks use threads, which are slower", setting);
    check.fix = "sudo sysctl -w kernel.io_uring_disabled=0";
  } else {
    check.cause = error_text(error) + "; disks use threads, which are slower";
    check.fix = error == ENOSYS ? "boot Linux 5.10 or newer, built with CONFIG_IO_URING"
                                : "allow io_uring_setup in the container's seccomp policy";
  }
  return check;
}

Check check_tun(const Host& host) {
  return check_node(host, {.id = "tun", .object = "/dev/net/tun"}, "tun",
                    "no tap networks for guests");
}

Check check_vhost_net(const Host& host) {
  return check_node(host, {.id = "vhost-net", .object = "/dev/vhost-net"}, "vhost_net",
                    "no --net with vhost-net");
}

Check check_vhost_vsock(const Host& host) {
  return check_node(host, {.id = "vhost-vsock", .object = "/dev/vhost-vsock"}, "vhost_vsock",
                    "no --vsock but with backend=user");
}

Check check_shmem_huge_pages(const Host& host) {
  constexpr const char* kPath = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
  Check check{.id = "shmem-huge-pages", .object = kPath};
  auto setting = host.read(kPath);
  if (!setting) {
    check.status = Status::kNote;
    check.cause = "missing: guest memory gets huge pages only from a reserved pool";
    check.fix =
        "use a kernel built with CONFIG_TRANSPARENT_HUGEPAGE, or reserve a pool: sudo "
        "sysctl -w vm.nr_hugepages=512 (2 MiB each)";
  } else if (setting->find("[never]") != std::string::npos ||
             setting->find("[deny]") != std::string::npos) {
    check.status = Status::kNote;
    check.cause = format_text("is \"{}\": guest memory gets no transparent huge pages", *setting);
    check.fix = format_text("echo advise | sudo tee {}", kPath);
  } else {
    check.cause = format_text("is \"{}\"", *setting);
  }
  return check;
}

Check check_user_network(const Host& host) {
  Check check{.id = "user-network", .object = std::string(UserNetFactory::kProgram)};
  auto program = host.find_program(UserNetFactory::kProgram);
  auto starts = program ? host.start_program(*program) : Result<void>();
  if (program && starts) {
    check.cause = format_text("{} serves --net user", *program);
    return check;
  }
  check.status = Status::kNote;
  const Error& why = program ? starts.error() : program.error();
  check.cause = format_text("--net user cannot be had: {}", why.what());
  check.fix = program ? "install the libraries that it needs (Debian: apt install libslirp0), and "
                        "the executable as it was built with this crosvm"
                      : "install crosvm-worker-net-user beside crosvm or in ../libexec/crosvm/";
  return check;
}

Check check_ping(const Host& host) {
  constexpr const char* kPath = "/proc/sys/net/ipv4/ping_group_range";
  Check check{.id = "ping", .object = kPath};
  const std::string range = host.read(kPath).value_or("");
  const std::vector<std::string_view> ends = words_of(range);
  const uint64_t low = ends.size() == 2 ? number<uint64_t>(ends[0]) : 1;
  const uint64_t high = ends.size() == 2 ? number<uint64_t>(ends[1]) : 0;
  bool allowed =
      std::ranges::any_of(host.groups, [&](uint32_t id) { return low <= id && id <= high; });
  if (allowed) {
    check.cause = format_text("is \"{} {}\": this user may ping", low, high);
    return check;
  }
  check.status = Status::kNote;
  check.cause = format_text(
      "is \"{} {}\", without a group of this user: ping does not leave a rootless network", low,
      high);
  check.fix = "sudo sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"";
  return check;
}

Check check_memory_locks(const Host& host) {
  Check check{.id = "memory-locks", .object = "RLIMIT_MEMLOCK", .cause = "does not bind"};
  if (host.may_lock_memory || host.memlock_bytes == UINT64_MAX) return check;
  check.status = Status::kNote;
  check.cause = format_text(
      "{} KiB: guests with more memory cannot have it locked or use passed-through devices",
      host.memlock_bytes / 1024);
  check.fix =
      "echo \"$USER - memlock unlimited\" | sudo tee /etc/security/limits.d/crosvm.conf, then log "
      "in again";
  return check;
}

std::vector<Check> run_checks(const Host& host) {
  std::vector<Check> checks = check_kvm(host);
  for (auto* check : {check_user_namespaces, check_seccomp, check_io_uring, check_tun,
                      check_vhost_net, check_vhost_vsock, check_shmem_huge_pages,
                      check_user_network, check_ping, check_memory_locks}) {
    checks.push_back(check(host));
  }
  return checks;
}

}  // namespace crosvm::doctor
