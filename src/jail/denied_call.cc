#include "jail/denied_call.h"

#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
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
  // All zero, padding included, or the kernel refuses it.
  std::vector<uint64_t> buffer(notification_size() / sizeof(uint64_t) + 1);
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

std::string describe_denied_call(const DeniedSystemCall& denied, std::string_view policy,
                                 std::string_view consequence) {
  const std::string called =
      format_text("called {}({}), which its policy{}{} does not allow, {}; ", denied.name,
                  denied.arguments, policy.empty() ? "" : " ", policy, consequence);
  if (denied.is_other_abi) return called + "no policy allows calls of another machine's kind";
  return called +
         format_text("the line \"{}: 1\" in a policy of --seccomp-policy-dir would allow it",
                     denied.name);
}

}  // namespace crosvm
