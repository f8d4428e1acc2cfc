#include "jail/seccomp_constants.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/mman.h>
#include <linux/netlink.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <linux/sync_file.h>
#include <linux/udmabuf.h>
#include <linux/userfaultfd.h>
#include <linux/vfio.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <span>

#include "base/linux_abi.h"

namespace crosvm {
namespace {

struct Constant {
  std::string_view name;
  uint64_t value;
};

/// Through the type of the constant: what is negative there has its sign extended.
template <class T>
constexpr uint64_t extended(T value) {
  return static_cast<uint64_t>(static_cast<int64_t>(value));
}

#define X(name) {#name, extended(name)},
/// Those that are the same on all our architectures, so this machine's headers know them.
constexpr Constant kCommon[] = {
    // Errors.
    X(EPERM) X(ENOENT) X(ESRCH) X(EINTR) X(EIO) X(ENXIO) X(E2BIG) X(ENOEXEC) X(EBADF) X(ECHILD)
        X(EAGAIN) X(EWOULDBLOCK) X(ENOMEM) X(EACCES) X(EFAULT) X(ENOTBLK) X(EBUSY) X(EEXIST)
            X(EXDEV) X(ENODEV) X(ENOTDIR) X(EISDIR) X(EINVAL) X(ENFILE) X(EMFILE) X(ENOTTY)
                X(ETXTBSY) X(EFBIG) X(ENOSPC) X(ESPIPE) X(EROFS) X(EMLINK) X(EPIPE) X(EDOM)
                    X(ERANGE) X(EDEADLK) X(ENAMETOOLONG) X(ENOLCK) X(ENOSYS) X(ENOTEMPTY) X(ELOOP)
                        X(ENODATA) X(ETIME) X(EPROTO) X(EOVERFLOW) X(EILSEQ) X(ENOTSOCK)
                            X(EDESTADDRREQ) X(EMSGSIZE) X(EPROTOTYPE) X(ENOPROTOOPT)
                                X(EPROTONOSUPPORT) X(ESOCKTNOSUPPORT) X(EOPNOTSUPP) X(ENOTSUP)
                                    X(EPFNOSUPPORT) X(EAFNOSUPPORT) X(EADDRINUSE) X(EADDRNOTAVAIL)
                                        X(ENETDOWN) X(ENETUNREACH) X(ECONNABORTED) X(ECONNRESET)
                                            X(ENOBUFS) X(EISCONN) X(ENOTCONN) X(ETIMEDOUT)
                                                X(ECONNREFUSED) X(EHOSTUNREACH) X(EALREADY)
                                                    X(EINPROGRESS) X(ESTALE) X(EDQUOT) X(ECANCELED)
    // Memory.
    X(PROT_NONE) X(PROT_READ) X(PROT_WRITE) X(PROT_EXEC) X(PROT_GROWSDOWN) X(PROT_GROWSUP) X(
        MAP_SHARED) X(MAP_PRIVATE) X(MAP_SHARED_VALIDATE) X(MAP_FIXED) X(MAP_ANONYMOUS) X(MAP_ANON)
        X(MAP_GROWSDOWN) X(MAP_DENYWRITE) X(MAP_EXECUTABLE) X(MAP_LOCKED) X(MAP_NORESERVE)
            X(MAP_POPULATE) X(MAP_NONBLOCK) X(MAP_STACK) X(MAP_HUGETLB) X(MAP_SYNC)
                X(MAP_FIXED_NOREPLACE) X(MREMAP_MAYMOVE) X(MREMAP_FIXED) X(MREMAP_DONTUNMAP)
                    X(MADV_NORMAL) X(MADV_RANDOM) X(MADV_SEQUENTIAL) X(MADV_WILLNEED)
                        X(MADV_DONTNEED) X(MADV_FREE) X(MADV_REMOVE) X(MADV_DONTFORK) X(MADV_DOFORK)
                            X(MADV_MERGEABLE) X(MADV_UNMERGEABLE) X(MADV_HUGEPAGE)
                                X(MADV_NOHUGEPAGE) X(MADV_DONTDUMP) X(MADV_DODUMP)
                                    X(MADV_WIPEONFORK) X(MADV_KEEPONFORK) X(MADV_COLD)
                                        X(MADV_PAGEOUT) X(MADV_POPULATE_READ) X(MADV_POPULATE_WRITE)
                                            X(MS_ASYNC) X(MS_SYNC) X(MS_INVALIDATE) X(MFD_CLOEXEC)
                                                X(MFD_ALLOW_SEALING) X(MFD_HUGETLB)
                                                    X(MFD_NOEXEC_SEAL) X(MLOCK_ONFAULT)
                                                        X(MCL_CURRENT) X(MCL_FUTURE) X(MCL_ONFAULT)
    // Files.
    X(O_RDONLY) X(O_WRONLY) X(O_RDWR) X(O_ACCMODE) X(O_CREAT) X(O_EXCL) X(O_NOCTTY) X(O_TRUNC) X(
        O_APPEND) X(O_NONBLOCK) X(O_NDELAY) X(O_DSYNC) X(O_SYNC) X(O_ASYNC) X(O_NOATIME)
        X(O_CLOEXEC) X(O_PATH) X(AT_FDCWD) X(AT_SYMLINK_NOFOLLOW) X(AT_REMOVEDIR) X(
            AT_SYMLINK_FOLLOW) X(AT_NO_AUTOMOUNT) X(AT_EMPTY_PATH) X(F_DUPFD) X(F_GETFD) X(F_SETFD)
            X(F_GETFL) X(F_SETFL) X(F_GETLK) X(F_SETLK) X(F_SETLKW) X(F_SETOWN) X(F_GETOWN) X(
                F_OFD_GETLK) X(F_OFD_SETLK) X(F_OFD_SETLKW)
                X(F_DUPFD_CLOEXEC) X(F_SETPIPE_SZ) X(F_GETPIPE_SZ) X(F_ADD_SEALS) X(F_GET_SEALS) X(
                    F_SETLEASE) X(F_GETLEASE) X(F_NOTIFY)
                    X(FD_CLOEXEC) X(F_SEAL_SEAL) X(F_SEAL_SHRINK) X(F_SEAL_GROW) X(F_SEAL_WRITE) X(
                        F_RDLCK) X(F_WRLCK) X(F_UNLCK) X(LOCK_SH) X(LOCK_EX) X(LOCK_UN)
                        X(LOCK_NB) X(SEEK_SET) X(SEEK_CUR) X(SEEK_END) X(SEEK_DATA) X(SEEK_HOLE) X(
                            FALLOC_FL_KEEP_SIZE) X(FALLOC_FL_PUNCH_HOLE) X(FALLOC_FL_ZERO_RANGE)
                            X(FALLOC_FL_COLLAPSE_RANGE)
                                X(FALLOC_FL_INSERT_RANGE) X(FALLOC_FL_UNSHARE_RANGE) X(
                                    POSIX_FADV_NORMAL) X(POSIX_FADV_DONTNEED) X(POSIX_FADV_WILLNEED)
                                    X(RWF_HIPRI) X(RWF_DSYNC) X(RWF_SYNC) X(RWF_NOWAIT) X(
                                        RWF_APPEND) X(RWF_DONTCACHE) X(EFD_CLOEXEC) X(EFD_NONBLOCK)
                                        X(EFD_SEMAPHORE) X(EPOLL_CLOEXEC) X(EPOLL_CTL_ADD)
                                            X(EPOLL_CTL_MOD) X(EPOLL_CTL_DEL) X(TFD_CLOEXEC)
                                                X(TFD_NONBLOCK) X(TFD_TIMER_ABSTIME) X(SFD_CLOEXEC)
                                                    X(SFD_NONBLOCK) X(IN_CLOEXEC) X(IN_NONBLOCK) X(
                                                        S_IFMT) X(S_IFREG) X(S_IFDIR) X(S_IFIFO)
                                                        X(S_IFSOCK) X(S_IFBLK) X(S_IFCHR) X(S_IFLNK)
                                                            X(GRND_NONBLOCK) X(GRND_RANDOM)
                                                                X(GRND_INSECURE) X(RENAME_NOREPLACE)
                                                                    X(RENAME_EXCHANGE)
                                                                        X(CLOSE_RANGE_CLOEXEC)
                                                                            X(CLOSE_RANGE_UNSHARE)
    // Sockets.
    X(AF_UNSPEC) X(AF_UNIX) X(AF_LOCAL) X(AF_INET) X(AF_INET6) X(AF_NETLINK) X(AF_PACKET)
        X(AF_VSOCK) X(AF_ALG) X(PF_UNIX) X(PF_INET) X(PF_INET6) X(PF_NETLINK) X(SOCK_STREAM)
            X(SOCK_DGRAM) X(SOCK_RAW) X(SOCK_SEQPACKET) X(SOCK_CLOEXEC) X(SOCK_NONBLOCK)
                X(SOL_SOCKET) X(SOL_TCP) X(IPPROTO_TCP) X(IPPROTO_UDP) X(IPPROTO_IP) X(IPPROTO_IPV6)
                    X(SO_REUSEADDR) X(SO_TYPE) X(SO_ERROR) X(SO_BROADCAST) X(SO_SNDBUF) X(SO_RCVBUF)
                        X(SO_SNDBUFFORCE) X(SO_RCVBUFFORCE) X(SO_KEEPALIVE) X(SO_LINGER)
                            X(SO_PASSCRED) X(SO_PEERCRED) X(SO_RCVTIMEO) X(SO_SNDTIMEO)
                                X(SO_ACCEPTCONN) X(SO_PROTOCOL) X(SO_DOMAIN) X(SO_MARK)
                                    X(TCP_NODELAY) X(SHUT_RD) X(SHUT_WR) X(SHUT_RDWR)
                                        X(MSG_DONTWAIT) X(MSG_NOSIGNAL) X(MSG_CMSG_CLOEXEC)
                                            X(MSG_PEEK) X(MSG_TRUNC) X(MSG_WAITALL) X(NETLINK_ROUTE)
                                                X(NETLINK_KOBJECT_UEVENT) X(NETLINK_GENERIC)
    // Processes, signals, time.
    X(CLONE_VM) X(CLONE_FS) X(CLONE_FILES) X(CLONE_SIGHAND) X(CLONE_PIDFD) X(CLONE_PTRACE) X(
        CLONE_VFORK) X(CLONE_PARENT) X(CLONE_THREAD) X(CLONE_NEWNS) X(CLONE_SYSVSEM) X(CLONE_SETTLS)
        X(CLONE_PARENT_SETTID) X(CLONE_CHILD_CLEARTID) X(CLONE_UNTRACED) X(CLONE_CHILD_SETTID) X(
            CLONE_NEWCGROUP) X(CLONE_NEWUTS) X(CLONE_NEWIPC)
            X(CLONE_NEWUSER) X(CLONE_NEWPID) X(CLONE_NEWNET) X(CLONE_IO) X(SIGHUP) X(SIGINT) X(
                SIGQUIT) X(SIGILL) X(SIGTRAP) X(SIGABRT) X(SIGBUS) X(SIGFPE) X(SIGKILL) X(SIGUSR1)
                X(SIGSEGV) X(SIGUSR2) X(SIGPIPE) X(SIGALRM) X(SIGTERM) X(SIGCHLD) X(SIGCONT) X(
                    SIGSTOP) X(SIGTSTP) X(SIGWINCH) X(SIGSYS) X(SIG_BLOCK) X(SIG_UNBLOCK)
                    X(SIG_SETMASK) X(WNOHANG) X(WUNTRACED) X(P_PID) X(P_PIDFD) X(PR_SET_NAME) X(
                        PR_GET_NAME) X(PR_SET_PDEATHSIG) X(PR_SET_DUMPABLE) X(PR_GET_DUMPABLE)
                        X(PR_SET_NO_NEW_PRIVS) X(PR_GET_NO_NEW_PRIVS) X(
                            PR_SET_VMA) X(PR_SET_VMA_ANON_NAME) X(PR_SET_SECCOMP) X(PR_GET_SECCOMP)
                            X(PR_SET_PTRACER) X(PR_SET_TIMERSLACK) X(PR_CAPBSET_READ) X(
                                PR_CAPBSET_DROP) X(PR_SET_KEEPCAPS) X(PR_SET_THP_DISABLE)
                                X(PR_SCHED_CORE) X(RLIMIT_AS) X(RLIMIT_CORE) X(RLIMIT_CPU) X(
                                    RLIMIT_DATA) X(RLIMIT_FSIZE) X(RLIMIT_NOFILE) X(RLIMIT_NPROC)
                                    X(RLIMIT_MEMLOCK) X(RLIMIT_STACK) X(RLIMIT_RTPRIO) X(
                                        RLIMIT_NICE) X(SCHED_OTHER) X(SCHED_FIFO) X(SCHED_RR)
                                        X(SCHED_BATCH) X(SCHED_IDLE) X(CLOCK_REALTIME) X(
                                            CLOCK_MONOTONIC) X(CLOCK_PROCESS_CPUTIME_ID)
                                            X(CLOCK_THREAD_CPUTIME_ID) X(CLOCK_MONOTONIC_RAW) X(
                                                CLOCK_REALTIME_COARSE) X(CLOCK_MONOTONIC_COARSE)
                                                X(CLOCK_BOOTTIME) X(
                                                    FUTEX_WAIT) X(FUTEX_WAKE) X(FUTEX_REQUEUE)
                                                    X(FUTEX_CMP_REQUEUE) X(FUTEX_WAKE_OP) X(
                                                        FUTEX_LOCK_PI) X(FUTEX_UNLOCK_PI)
                                                        X(FUTEX_WAIT_BITSET) X(FUTEX_WAKE_BITSET) X(
                                                            FUTEX_PRIVATE_FLAG) X(FUTEX_CLOCK_REALTIME)
                                                            X(SECCOMP_SET_MODE_STRICT) X(
                                                                SECCOMP_SET_MODE_FILTER)
                                                                X(SECCOMP_GET_ACTION_AVAIL) X(
                                                                    IORING_ENTER_GETEVENTS)
                                                                    X(IORING_ENTER_SQ_WAKEUP) X(
                                                                        IORING_ENTER_EXT_ARG)
                                                                        X(IORING_REGISTER_BUFFERS) X(
                                                                            IORING_REGISTER_FILES)
                                                                            X(IORING_REGISTER_EVENTFD)
                                                                                X(IORING_REGISTER_PROBE)
    // ioctl.
    X(FIONBIO) X(FIONREAD) X(FIOCLEX) X(FIONCLEX) X(TCGETS) X(TCSETS) X(TCSETSW) X(TCSETSF)
        X(TCFLSH) X(TCSBRK) X(TIOCGWINSZ) X(TIOCSWINSZ) X(TIOCSTI) X(TIOCGPTN) X(TIOCSPTLCK) X(
            TIOCGPGRP) X(TIOCSPGRP) X(TIOCSCTTY) X(TIOCOUTQ) X(BLKDISCARD) X(BLKSECDISCARD)
            X(BLKZEROOUT) X(BLKGETSIZE) X(BLKGETSIZE64) X(BLKSSZGET) X(BLKPBSZGET) X(BLKIOMIN) X(
                BLKIOOPT) X(BLKALIGNOFF) X(BLKFLSBUF) X(BLKROGET) X(BLKRRPART)
                X(FICLONE) X(FICLONERANGE) X(FIDEDUPERANGE) X(FS_IOC_FIEMAP) X(FS_IOC_GETFLAGS) X(
                    FS_IOC_SETFLAGS) X(FS_IOC_FSGETXATTR) X(FS_IOC_FSSETXATTR) X(FITRIM) X(FIBMAP)
                    X(TUNSETIFF) X(TUNGETIFF) X(TUNSETOFFLOAD) X(TUNSETVNETHDRSZ) X(TUNGETFEATURES)
                        X(TUNSETQUEUE) X(TUNSETPERSIST) X(TUNSETOWNER)
                            X(TUNGETVNETHDRSZ) X(SIOCGIFFLAGS) X(SIOCSIFFLAGS) X(SIOCGIFHWADDR) X(
                                SIOCSIFHWADDR) X(SIOCGIFADDR) X(SIOCSIFADDR)
                                X(SIOCGIFNETMASK) X(SIOCSIFNETMASK) X(SIOCGIFMTU) X(SIOCGIFINDEX) X(
                                    SIOCETHTOOL) X(VFIO_GET_API_VERSION) X(VFIO_CHECK_EXTENSION)
                                    X(VFIO_SET_IOMMU) X(VFIO_GROUP_GET_STATUS) X(
                                        VFIO_GROUP_SET_CONTAINER)
                                        X(VFIO_GROUP_UNSET_CONTAINER) X(VFIO_GROUP_GET_DEVICE_FD) X(
                                            VFIO_DEVICE_GET_INFO) X(VFIO_DEVICE_GET_REGION_INFO)
                                            X(
                                                VFIO_DEVICE_GET_IRQ_INFO) X(VFIO_DEVICE_SET_IRQS)
                                                X(VFIO_DEVICE_RESET) X(VFIO_DEVICE_FEATURE)
                                                    X(VFIO_IOMMU_GET_INFO) X(VFIO_IOMMU_MAP_DMA) X(
                                                        VFIO_IOMMU_UNMAP_DMA) X(VFIO_IOMMU_ENABLE)
                                                        X(VFIO_IOMMU_DISABLE) X(UFFDIO_API) X(
                                                            UFFDIO_REGISTER) X(UFFDIO_UNREGISTER)
                                                            X(UFFDIO_WAKE) X(UFFDIO_COPY) X(
                                                                UFFDIO_ZEROPAGE) X(UFFDIO_CONTINUE)
                                                                X(UDMABUF_CREATE)
                                                                    X(UDMABUF_CREATE_LIST)
                                                                        X(DMA_BUF_IOCTL_SYNC)
                                                                            X(SYNC_IOC_FILE_INFO)
                                                                                X(SYNC_IOC_MERGE)};
#undef X

/// <linux/vhost.h> is not C++.
constexpr Constant kVhost[] = {
    {"VHOST_GET_FEATURES", 0x8008af00},
    {"VHOST_SET_FEATURES", 0x4008af00},
    {"VHOST_SET_OWNER", 0xaf01},
    {"VHOST_RESET_OWNER", 0xaf02},
    {"VHOST_SET_MEM_TABLE", 0x4008af03},
    {"VHOST_SET_LOG_BASE", 0x4008af04},
    {"VHOST_SET_LOG_FD", 0x4004af07},
    {"VHOST_SET_VRING_NUM", 0x4008af10},
    {"VHOST_SET_VRING_ADDR", 0x4028af11},
    {"VHOST_SET_VRING_BASE", 0x4008af12},
    {"VHOST_GET_VRING_BASE", 0xc008af12},
    {"VHOST_SET_VRING_KICK", 0x4008af20},
    {"VHOST_SET_VRING_CALL", 0x4008af21},
    {"VHOST_SET_VRING_ERR", 0x4008af22},
    {"VHOST_NET_SET_BACKEND", 0x4008af30},
    {"VHOST_SCSI_SET_ENDPOINT", 0x40e8af40},
    {"VHOST_VSOCK_SET_GUEST_CID", 0x4008af60},
    {"VHOST_VSOCK_SET_RUNNING", 0x4004af61},
    {"VHOST_GET_BACKEND_FEATURES", 0x8008af26},
    {"VHOST_SET_BACKEND_FEATURES", 0x4008af25},
};

/// Those that differ: x86_64 and riscv64 have the kernel's generic values.
struct ByArch {
  std::string_view name;
  uint64_t generic;
  uint64_t aarch64;
};
constexpr ByArch kByArch[] = {
    {"O_DIRECT", 040000, 0200000},       {"O_DIRECTORY", 0200000, 040000},
    {"O_LARGEFILE", 0100000, 0400000},   {"O_NOFOLLOW", 0400000, 0100000},
    {"O_TMPFILE", 020200000, 020040000},
};

/// Those of x86_64 alone.
constexpr Constant kX86[] = {
    {"ARCH_SET_FS", 0x1002},
    {"ARCH_GET_FS", 0x1003},
    {"MAP_32BIT", 0x40},
};

std::optional<uint64_t> find(std::span<const Constant> table, std::string_view name) {
  auto found = std::ranges::find(table, name, &Constant::name);
  if (found == table.end()) return std::nullopt;
  return found->value;
}

}  // namespace

std::optional<uint64_t> seccomp_constant(std::string_view name, PolicyArch arch) {
  auto differing = std::ranges::find(kByArch, name, &ByArch::name);
  if (differing != std::end(kByArch)) {
    return arch == PolicyArch::kAarch64 ? differing->aarch64 : differing->generic;
  }
  if (arch == PolicyArch::kX86_64) {
    if (auto value = find(kX86, name)) return value;
  }
  if (auto value = find(kVhost, name)) return value;
  return find(kCommon, name);
}

}  // namespace crosvm
