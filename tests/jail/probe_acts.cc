#include "probe_acts.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/openat2.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

namespace crosvm::test {
namespace {

using Targets = ProbeTargets;

/// The bare system call: a C library may check, or do something else instead.
template <class... Args>
long bare(long number, Args... arguments) {
  const long result = ::syscall(number, arguments...);
  return result < 0 ? -errno : result;
}

/// What an act got it does not keep: the next finds what a device has.
long closed(long fd) {
  if (fd >= 0) ::close(static_cast<int>(fd));
  return fd;
}

long open_at(const char* path, int flags) {
  return closed(bare(SYS_openat, AT_FDCWD, path, flags, 0600));
}

long make_socket(int family, int type, int protocol = 0) {
  return closed(bare(SYS_socket, family, type | SOCK_CLOEXEC, protocol));
}

/// A new process, which ends at once.
long end_if_child(long pid) {
  if (pid == 0) ::_exit(0);
  return pid;
}

long open_at_2(const Targets&) {
  open_how how = {};
  how.flags = O_RDONLY;
  return bare(SYS_openat2, AT_FDCWD, "/", &how, sizeof(how));
}

long connect_to_a_path(const Targets&) {
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
  return bare(SYS_connect, 0, &address, sizeof(address));
}

long bind_a_name(const Targets&) {
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0probe"};
  return bare(SYS_bind, 0, &address, sizeof(address));
}

/// Local sockets share their names with all that is in the same network.
long connect_internet_socket_to_a_path(const Targets&) {
  const long socket = bare(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
  const long result = bare(SYS_connect, socket, &address, sizeof(address));
  closed(socket);
  return result;
}

/// On one of the sockets that it was given.
long listen_by_a_name(const Targets&) {
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0probe"};
  long result = -ENOTSOCK;
  for (int fd = 3; fd < 64; ++fd) {
    struct stat status = {};
    if (::fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode)) continue;
    (void)bare(SYS_bind, fd, &address, sizeof(address));
    result = bare(SYS_listen, fd, 1);
    if (result >= 0) return result;
  }
  return result;
}

long set_option(int level, int option) {
  int value = 1;
  return bare(SYS_setsockopt, 0, level, option, &value, sizeof(value));
}

long bring_an_interface_down(const Targets&) {
  ifreq request = {};
  request.ifr_name[0] = 'l';
  request.ifr_name[1] = 'o';
  return bare(SYS_ioctl, 0, SIOCSIFFLAGS, &request);
}

long send_to_a_name(const Targets&) {
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
  return bare(SYS_sendto, 0, "x", 1, 0, &address, sizeof(address));
}

long read_other_memory(const Targets& targets) {
  char byte = 0;
  iovec here = {.iov_base = &byte, .iov_len = 1};
  iovec there = {.iov_base = &byte, .iov_len = 1};
  return bare(SYS_process_vm_readv, targets.outside, &here, 1, &there, 1, 0);
}

long clone_3(const Targets&) {
  clone_args request = {};
  request.exit_signal = SIGCHLD;
  return end_if_child(bare(SYS_clone3, &request, sizeof(request)));
}

long execute_self(const Targets&) {
  const char* const none[] = {nullptr};
  return bare(SYS_execveat, 0, "", none, none, AT_EMPTY_PATH);
}

long execute_path(const Targets&) {
  const char* const none[] = {nullptr};
  return bare(SYS_execve, "/bin/true", none, none);
}

long map_memory(int protection) {
  const long at = bare(SYS_mmap, 0L, 4096L, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
  return at < 0 && at > -4096 ? at : 0;
}

long make_memory_executable(const Targets&) {
  alignas(4096) static std::array<char, 4096> page = {};
  return bare(SYS_mprotect, page.data(), page.size(), PROT_READ | PROT_EXEC);
}

long make_memory_executable_by_key(const Targets&) {
  alignas(4096) static std::array<char, 4096> page = {};
  return bare(SYS_pkey_mprotect, page.data(), page.size(), PROT_READ | PROT_EXEC, -1);
}

long make_ring(const Targets&) {
  io_uring_params parameters = {};
  return bare(SYS_io_uring_setup, 4, &parameters);
}

/// Free the ring of its restrictions, or give it files.
long register_with_ring(const Targets& targets) {
  int file = 0;
  return bare(SYS_io_uring_register, targets.ring ? targets.ring->ring_fd : 0,
              IORING_REGISTER_FILES, &file, 1);
}

/// One operation through the process's own ring.
template <class Prepare>
long by_ring(const Targets& targets, Prepare prepare) {
  if (!targets.ring) return -ENODEV;
  io_uring_sqe* entry = io_uring_get_sqe(targets.ring);
  if (!entry) return -EBUSY;
  prepare(entry);
  io_uring_cqe* completion = nullptr;
  int result = io_uring_submit_and_wait(targets.ring, 1);
  if (result < 0) return result;
  result = io_uring_peek_cqe(targets.ring, &completion);
  if (result < 0) return result;
  result = completion->res;
  io_uring_cqe_seen(targets.ring, completion);
  return result;
}

long ring_opens(const Targets& targets) {
  return by_ring(targets,
                 [](io_uring_sqe* entry) { io_uring_prep_openat(entry, AT_FDCWD, "/", 0, 0); });
}

long ring_makes_socket(const Targets& targets) {
  return by_ring(targets, [](io_uring_sqe* entry) {
    io_uring_prep_rw(45, entry, AF_UNIX, nullptr, 0, SOCK_STREAM);  // IORING_OP_SOCKET, Linux 5.19
  });
}

long ring_connects(const Targets& targets) {
  static sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
  return by_ring(targets, [](io_uring_sqe* entry) {
    io_uring_prep_connect(entry, 0, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  });
}

long ring_sends(const Targets& targets) {
  return by_ring(targets, [](io_uring_sqe* entry) { io_uring_prep_send(entry, 0, "x", 1, 0); });
}

long find_other_descriptors(const Targets& targets) {
  for (int fd = 0; fd < 4096; ++fd) {
    if (std::ranges::count(targets.own_descriptors, fd) > 0) continue;
    struct stat status = {};
    if (::fstat(fd, &status) != 0) continue;
    if (!targets.other_file || status.st_ino == *targets.other_file) return fd;
  }
  return -EBADF;
}

long take_other_descriptor(const Targets& targets) {
  const long pidfd = bare(SYS_pidfd_open, targets.outside, 0);
  return bare(SYS_pidfd_getfd, pidfd < 0 ? 0 : pidfd, 0, 0);
}

long measure_performance(const Targets&) {
  perf_event_attr attributes = {};
  attributes.size = sizeof(attributes);
  attributes.type = PERF_TYPE_SOFTWARE;
  return bare(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
}

constexpr ProbeAct kActs[] = {
    // Files.
    {"open a file", "openat", [](const Targets&) { return open_at("/etc/passwd", O_RDONLY); },
     UserNetAnswer::kFails},
    {"open the root", "openat", [](const Targets&) { return open_at("/", O_RDONLY); },
     UserNetAnswer::kHarmless},
    {"open the root as a place", "openat", [](const Targets&) { return open_at("/", O_PATH); }},
    {"open /proc", "openat", [](const Targets&) { return open_at("/proc/self/mem", O_RDWR); }},
    {"open /dev/kvm", "openat", [](const Targets&) { return open_at("/dev/kvm", O_RDWR); }},
    {"create a file", "openat", [](const Targets&) { return open_at("/x", O_CREAT | O_RDWR); }},
    {"open with openat2", "openat2", open_at_2},
    {"look at a path", "newfstatat",
     [](const Targets&) {
       struct stat status = {};
       return bare(SYS_newfstatat, AT_FDCWD, "/", &status, 0);
     },
     UserNetAnswer::kHarmless},
    {"ask for access", "faccessat",
     [](const Targets&) { return bare(SYS_faccessat, AT_FDCWD, "/", 0); }},
    {"list a directory", "getdents64",
     [](const Targets&) {
       char buffer[64];
       return bare(SYS_getdents64, 0, buffer, sizeof(buffer));
     }},
    {"read a link", "readlinkat",
     [](const Targets&) {
       char buffer[64];
       return bare(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", buffer, sizeof(buffer));
     }},
    {"remove a file", "unlinkat",
     [](const Targets&) { return bare(SYS_unlinkat, AT_FDCWD, "/x", 0); }},
    {"make a directory", "mkdirat",
     [](const Targets&) { return bare(SYS_mkdirat, AT_FDCWD, "/x", 0700); }},
    {"change the directory", "chdir", [](const Targets&) { return bare(SYS_chdir, "/"); }},
    {"change the root", "chroot", [](const Targets&) { return bare(SYS_chroot, "/"); }},
    {"open by handle", "open_by_handle_at",
     [](const Targets&) { return bare(SYS_open_by_handle_at, AT_FDCWD, nullptr, 0); }},
    // Sockets.
    {"make an internet socket", "socket",
     [](const Targets&) { return make_socket(AF_INET, SOCK_STREAM); }, UserNetAnswer::kHarmless},
    {"make an IPv6 socket", "socket",
     [](const Targets&) { return make_socket(AF_INET6, SOCK_DGRAM); }, UserNetAnswer::kHarmless},
    {"make a raw socket", "socket",
     [](const Targets&) { return make_socket(AF_INET, SOCK_RAW, IPPROTO_TCP); },
     UserNetAnswer::kRefused},
    {"make a raw IPv6 socket", "socket",
     [](const Targets&) { return make_socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6); },
     UserNetAnswer::kRefused},
    {"make a socket of many paths", "socket",
     [](const Targets&) { return make_socket(AF_INET, SOCK_STREAM, 262); },  // IPPROTO_MPTCP
     UserNetAnswer::kRefused},
    {"make a sequenced internet socket", "socket",
     [](const Targets&) { return make_socket(AF_INET, SOCK_SEQPACKET, IPPROTO_SCTP); },
     UserNetAnswer::kRefused},
    {"make a local socket", "socket",
     [](const Targets&) { return make_socket(AF_UNIX, SOCK_STREAM); }, UserNetAnswer::kRefused},
    {"make a netlink socket", "socket",
     [](const Targets&) { return make_socket(AF_NETLINK, SOCK_RAW); }, UserNetAnswer::kRefused},
    {"make a packet socket", "socket",
     [](const Targets&) { return make_socket(AF_PACKET, SOCK_RAW); }, UserNetAnswer::kRefused},
    {"make a vsock socket", "socket",
     [](const Targets&) { return make_socket(AF_VSOCK, SOCK_STREAM); }, UserNetAnswer::kRefused},
    {"make a crypto socket", "socket",
     [](const Targets&) { return make_socket(AF_ALG, SOCK_SEQPACKET); }, UserNetAnswer::kRefused},
    {"make a pair of sockets", "socketpair",
     [](const Targets&) {
       int both[2];
       return bare(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, both);
     }},
    {"connect to a path", "connect", connect_to_a_path, UserNetAnswer::kFails},
    {"connect an internet socket to a path", "socket", connect_internet_socket_to_a_path,
     UserNetAnswer::kFails},
    {"bind a name", "bind", bind_a_name, UserNetAnswer::kFails},
    {"listen by a name", "bind", listen_by_a_name, UserNetAnswer::kFails},
    {"send to a name", "sendto", send_to_a_name, UserNetAnswer::kFails},
    {"filter a socket's packets", "setsockopt",
     [](const Targets&) { return set_option(SOL_SOCKET, SO_ATTACH_FILTER); }},
    {"mark a socket's packets", "setsockopt",
     [](const Targets&) { return set_option(SOL_SOCKET, SO_MARK); }},
    {"take others' addresses", "setsockopt",
     [](const Targets&) { return set_option(IPPROTO_IP, 19); }},  // IP_TRANSPARENT
    {"bring an interface down", "ioctl", bring_an_interface_down},
    // Other processes.
    {"trace a process", "ptrace",
     [](const Targets& t) { return bare(SYS_ptrace, PTRACE_SEIZE, t.outside, 0L, 0L); }},
    {"read a process's memory", "process_vm_readv", read_other_memory},
    {"signal a process", "kill", [](const Targets& t) { return bare(SYS_kill, t.outside, 0); }},
    {"signal a thread", "tgkill",
     [](const Targets& t) { return bare(SYS_tgkill, t.outside, t.outside, 0); }},
    {"get hold of a process", "pidfd_open",
     [](const Targets& t) { return bare(SYS_pidfd_open, t.outside, 0); }},
    {"take a process's descriptor", "pidfd_open", take_other_descriptor},
    {"take a descriptor", "pidfd_getfd",
     [](const Targets&) { return bare(SYS_pidfd_getfd, 0, 0, 0); }},
    {"find another device's descriptor", "", find_other_descriptors},
    {"make a process", "clone",
     [](const Targets&) {
       return end_if_child(bare(SYS_clone, static_cast<long>(SIGCHLD), 0L, 0L, 0L, 0L));
     }},
    {"make a process with clone3", "", clone_3},
    {"execute a file", "execve", execute_path},
    {"execute a descriptor", "execveat", execute_self},
    // Namespaces and mounts.
    {"mount", "mount",
     [](const Targets&) { return bare(SYS_mount, "none", "/", "tmpfs", 0L, 0L); }},
    {"unmount", "umount2", [](const Targets&) { return bare(SYS_umount2, "/", 2L); }},
    {"make a file system", "fsopen", [](const Targets&) { return bare(SYS_fsopen, "tmpfs", 0); }},
    {"make a user namespace", "unshare",
     [](const Targets&) { return bare(SYS_unshare, CLONE_NEWUSER); }},
    {"enter a namespace", "setns", [](const Targets&) { return bare(SYS_setns, 0, 0); }},
    {"make a process in namespaces", "clone",
     [](const Targets&) {
       return end_if_child(
           bare(SYS_clone, static_cast<long>(CLONE_NEWUSER | SIGCHLD), 0L, 0L, 0L, 0L));
     }},
    // Executable memory.
    {"map executable memory", "mmap",
     [](const Targets&) { return map_memory(PROT_READ | PROT_WRITE | PROT_EXEC); }},
    {"make memory executable", "mprotect", make_memory_executable},
    {"make memory executable by a key", "pkey_mprotect", make_memory_executable_by_key},
    // io_uring.
    {"make a ring", "io_uring_setup", make_ring},
    {"register with the ring", "io_uring_register", register_with_ring},
    {"open by the ring", "", ring_opens},
    {"make a socket by the ring", "", ring_makes_socket},
    {"connect by the ring", "", ring_connects},
    {"send by the ring", "", ring_sends},
    // The kernel.
    {"load a BPF program", "bpf", [](const Targets&) { return bare(SYS_bpf, 0, 0L, 0); }},
    {"measure performance", "perf_event_open", measure_performance},
    {"handle page faults", "userfaultfd", [](const Targets&) { return bare(SYS_userfaultfd, 1); }},
    {"add a key", "add_key",
     [](const Targets&) { return bare(SYS_add_key, "user", "x", "x", 1L, -3); }},
    {"make shared memory", "shmget",
     [](const Targets&) { return bare(SYS_shmget, 0, 4096L, 0600); }},
    {"make a message queue", "msgget", [](const Targets&) { return bare(SYS_msgget, 0, 0600); }},
    {"get capabilities", "capset", [](const Targets&) { return bare(SYS_capset, 0L, 0L); }},
    {"change the user", "setuid", [](const Targets&) { return bare(SYS_setuid, 0); }},
    {"become dumpable", "prctl",
     [](const Targets&) { return bare(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0); }},
    {"raise a limit", "prlimit64",
     [](const Targets&) { return bare(SYS_prlimit64, 0, 7, 0L, 0L); }},
    {"add a filter", "seccomp", [](const Targets&) { return bare(SYS_seccomp, 0, 0, 0L); }},
    {"type on a terminal", "ioctl",
     [](const Targets&) { return bare(SYS_ioctl, 0, TIOCSTI, "x"); }},
    {"change a terminal", "ioctl", [](const Targets&) { return bare(SYS_ioctl, 0, TCSETS, 0L); }},
};

}  // namespace

std::span<const ProbeAct> probe_acts() { return kActs; }

bool is_harmless_result(const ProbeAct& act, std::string_view policy, long result) {
  if (policy == kUserNetPolicy && act.user_net == UserNetAnswer::kRefused) {
    return result == -EACCES;
  }
  return result < 0 || (policy == kUserNetPolicy && act.user_net == UserNetAnswer::kHarmless);
}

}  // namespace crosvm::test
