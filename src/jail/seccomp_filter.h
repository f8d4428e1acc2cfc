#pragma once

#include <linux/filter.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// What happens to a call that a policy does not allow.
enum class SeccompDefault {
  kKillProcess,
  kNotify,  ///< the supervisor with the listener is asked
  kLog,     ///< the kernel logs it (audit), and it goes on: --seccomp-log-failures
};

/// A compiled policy, not yet in force.
class SeccompProgram {
 public:
  /// `code` with kSeccompDefaultMark where the default action is to be put in.
  static SeccompProgram compiled(std::vector<sock_filter> code);
  /// Somebody's own program: its actions stay what they are.
  static SeccompProgram foreign(std::vector<sock_filter> code);

  std::span<const sock_filter> code() const { return code_; }
  void set_default(SeccompDefault action);
  /// The file it was read from; empty: it was compiled in.
  const std::string& path() const { return path_; }
  void set_path(std::string path) { path_ = std::move(path); }

 private:
  explicit SeccompProgram(std::vector<sock_filter> code) : code_(std::move(code)) {}

  std::vector<sock_filter> code_;
  std::vector<size_t> defaults_;  // where in the code
  std::string path_;
};

/// Where policies come from.
struct SeccompPolicySource {
  /// --seccomp-policy-dir; without one: what was compiled in when this program was built.
  std::optional<std::string> directory = std::nullopt;
  SeccompDefault action = SeccompDefault::kKillProcess;
};

/// The policy `name` ("block_device") with the source's default action. From a directory:
/// NAME.bpf (an array of sock_filter, whose own actions stay) unless failures are merely logged,
/// else NAME.policy. Errors: no_such_file_or_directory for a name that is not compiled in, those of
/// reading files, invalid_argument for what is wrong in them.
Result<SeccompProgram> find_seccomp_policy(std::string_view name,
                                           const SeccompPolicySource& source);

/// The names that are compiled in, sorted.
std::vector<std::string_view> embedded_seccomp_policies();

struct SeccompInstall {
  /// Every thread of the process; else the calling one and those that it starts.
  bool all_threads = false;
  /// Returns the descriptor on which calls with action kNotify are reported (seccomp_unotify(2)).
  bool listener = false;
};

/// Puts `program` in force, for good. The process must have set no_new_privs. Returns the listener,
/// or an empty Fd. Errors: the errno of seccomp, with cause and fix.
Result<Fd> install_seccomp(const SeccompProgram& program, const SeccompInstall& options);

}  // namespace crosvm
