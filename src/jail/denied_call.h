#pragma once

#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// A system call that a filter did not allow.
struct DeniedSystemCall {
  std::string name;           ///< "openat", or "call 9999" for one without a name
  std::string arguments;      ///< the six registers, as "0xffffff9c, 0x7f…, …"
  bool is_other_abi = false;  ///< not of the machine that the policy is for
};

/// Takes the next call from `listener` (seccomp_unotify(2)), which must be readable; its thread
/// stays where it is. Errors: the errno of the ioctl, no_such_file_or_directory when the thread has
/// gone meanwhile.
Result<DeniedSystemCall> receive_denied_call(const Fd& listener);

/// A clause for the log: "called CALL(…), which its policy POLICY does not allow, CONSEQUENCE; "
/// and the line of a policy that would allow it.
std::string describe_denied_call(const DeniedSystemCall& denied, std::string_view policy,
                                 std::string_view consequence);

}  // namespace crosvm
