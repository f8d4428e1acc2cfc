#include "base/restricted_ring.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/fd.h"
#include "base/format.h"

namespace crosvm {
namespace {

constexpr std::array<uint8_t, 9> kOperations = {
    IORING_OP_READV,     IORING_OP_WRITEV,         IORING_OP_FSYNC,
    IORING_OP_FALLOCATE, IORING_OP_POLL_ADD,       IORING_OP_POLL_REMOVE,
    IORING_OP_TIMEOUT,   IORING_OP_TIMEOUT_REMOVE, IORING_OP_ASYNC_CANCEL};

constexpr std::string_view kSysctl = "/proc/sys/kernel/io_uring_disabled";

/// The sysctl (Linux 6.6): '0' on, '1' only for a group, '2' off; anything else when unreadable.
char disabled_by_sysctl() {
  std::array<std::byte, 1> digit = {};
  auto file = open_path(std::string(kSysctl), O_RDONLY);
  if (!file || read_full(*file, digit, "").value_or(0) != 1) return '?';
  return static_cast<char>(digit[0]);
}

/// What is likely to stand in the way, and what helps.
std::string likely_cause(int error) {
  switch (error) {
    case EPERM:
      if (char value = disabled_by_sysctl(); value == '1' || value == '2') {
        return format_text(
            ": the sysctl kernel.io_uring_disabled is {}; set it to 0, or use the executor epoll",
            value);
      }
      return ": a seccomp filter of the container or service forbids it; allow io_uring_setup, "
             "io_uring_enter and io_uring_register there, or use the executor epoll";
    case ENOSYS:
      return ": this kernel has no io_uring, or a seccomp filter hides it; use the executor epoll";
    case ENOMEM:
      return ": raise RLIMIT_MEMLOCK (ulimit -l) or the memory limit of the cgroup, or use the "
             "executor epoll";
    case EINVAL:
      return ": restricted rings need Linux 5.10 or newer; use the executor epoll";
    default:
      return "";
  }
}

std::unexpected<Error> failed(std::string_view doing, int error) {
  Error what = Error::from_errno(doing, "an io_uring", error);
  return fail(Error(what.code(), what.what() + likely_cause(error)));
}

/// Disabled until it is restricted. SUBMIT_ALL: one operation that is refused does not hold up
/// those behind it. COOP_TASKRUN: no interrupt of this thread for a completion; it looks by itself.
/// Not SINGLE_ISSUER: a ring is made before the thread that will use it.
int set_up(io_uring& ring, uint32_t entries) {
  for (unsigned more : {IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN,  // Linux 5.18, 5.19
                        IORING_SETUP_SUBMIT_ALL, 0U}) {
    io_uring_params params = {};
    params.flags = IORING_SETUP_R_DISABLED | more;
    int result = io_uring_queue_init_params(entries, &ring, &params);
    if (result != -EINVAL) return result;
  }
  return -EINVAL;
}

/// 0 or minus an errno. The library's own functions are missing from Debian 12's shared liburing.
int register_with(io_uring& ring, unsigned what, const void* arguments, size_t count) {
  long result = ::syscall(__NR_io_uring_register, ring.ring_fd, what, arguments,
                          static_cast<unsigned>(count));
  return result < 0 ? -errno : 0;
}

int restrict(io_uring& ring) {
  std::array<io_uring_restriction, kOperations.size()> allowed = {};
  for (size_t i = 0; i < kOperations.size(); ++i) {
    allowed[i].opcode = IORING_RESTRICTION_SQE_OP;
    allowed[i].sqe_op = kOperations[i];
  }
  if (int result =
          register_with(ring, IORING_REGISTER_RESTRICTIONS, allowed.data(), allowed.size())) {
    return result;
  }
  return register_with(ring, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
}

/// As a registered file, which no operation can use: their flags are restricted too. The kernel
/// lets go of it when the ring has gone and no operation is left.
int hold(io_uring& ring, const Fd& held) {
  const int file = held.get();
  return held ? register_with(ring, IORING_REGISTER_FILES, &file, 1) : 0;
}

}  // namespace

Result<void> set_up_restricted_ring(io_uring& ring, uint32_t entries, const Fd& held) {
  if (int result = set_up(ring, entries)) return failed("creating", -result);
  int result = hold(ring, held);  // nothing can be registered later
  if (result == 0) result = restrict(ring);
  if (result != 0) {
    io_uring_queue_exit(&ring);
    return failed("restricting", -result);
  }
  return {};
}

}  // namespace crosvm
