#include "jail/denied_call.h"

#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "base/format.h"

namespace crosvm {
namespace {

/// The kernel writes as much as it knows of, which may be more than our headers do.
size_t notification_size() {
  seccomp_notif_sizes sizes{};
  if (::syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0) return sizeof(seccomp_notif);
  return std::max<size_t>(sizes.seccomp_notif, sizeof(seccomp_notif));
}

std::string name_of_call(uint32_t arch, int number) {
  struct Free {
    void operator()(char* text) const { std::free(text); }
  };
  const std::unique_ptr<char, Free> name(::seccomp_syscall_resolve_num_arch(arch, number));
  return name ? name.get() : format_text("call {}", number);
}

}  // namespace

Result<DeniedSystemCall> receive_denied_call(const Fd& listener) {
  std::vector<std::max_align_t> buffer(notification_size() / sizeof(std::max_align_t) + 1);
  if (::ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_RECV, buffer.data()) != 0) {
    return fail(Error::from_errno("reading from", "a seccomp listener"));
  }
  seccomp_notif notification{};
  std::memcpy(&notification, buffer.data(), sizeof(notification));
  const seccomp_data& call = notification.data;
  DeniedSystemCall denied{.name = name_of_call(call.arch, call.nr),
                          .arguments = {},
                          .is_other_abi = call.arch != ::seccomp_arch_native()};
  for (const uint64_t argument : call.args) {
    denied.arguments += format_text("{}{:#x}", denied.arguments.empty() ? "" : ", ", argument);
  }
  return denied;
}

}  // namespace crosvm
