#include "jail/check_sandbox_options.h"

#include <sys/stat.h>

#include <cerrno>
#include <string>

#include "base/format.h"
#include "base/log.h"
#include "jail/jail_root.h"

namespace crosvm {
namespace {

constexpr std::string_view kPivotRoot = "pivot-root";
constexpr std::string_view kPolicies = "seccomp-policy-dir";

Result<void> check_policies(const std::string& path, const std::string& option) {
  struct stat status{};
  const bool there = ::stat(path.c_str(), &status) == 0;
  if (there && S_ISDIR(status.st_mode)) return {};
  const Error cause = Error::from_errno("looking at", path, there ? ENOTDIR : errno);
  return fail(Error(cause.code(), format_text("{}: {}; give a directory of policies, or leave the "
                                              "option out for those that are built in",
                                              option, cause.what())));
}

}  // namespace

Result<void> check_sandbox_options(const SandboxOptions& options, std::string_view option) {
  if (options.pivot_root) {
    TRY(check_pivot_root(*options.pivot_root, format_text("{}{}", option, kPivotRoot)));
  }
  if (options.seccomp_policy_dir) {
    TRY(check_policies(*options.seccomp_policy_dir, format_text("{}{}", option, kPolicies)));
  }
  return {};
}

void warn_of_ignored(const SandboxOptions& options, std::string_view option) {
  const auto warn = [option](bool given, std::string_view name) {
    if (!given) return;
    log::warn("{}{} has no effect with --disable-sandbox; leave out one of the two", option, name);
  };
  warn(options.pivot_root.has_value(), kPivotRoot);
  warn(options.seccomp_policy_dir.has_value(), kPolicies);
  warn(options.seccomp_log_failures, "seccomp-log-failures");
}

}  // namespace crosvm
