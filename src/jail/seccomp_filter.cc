#include "jail/seccomp_filter.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/format.h"
#include "jail/seccomp_compile.h"
#include "jail/seccomp_embedded.h"
#include "jail/seccomp_policy.h"

namespace crosvm {
namespace {

uint32_t action_code(SeccompDefault action) {
  switch (action) {
    case SeccompDefault::kKillProcess:
      return SECCOMP_RET_KILL_PROCESS;
    case SeccompDefault::kNotify:
      return SECCOMP_RET_USER_NOTIF;
    case SeccompDefault::kLog:
      return SECCOMP_RET_LOG;
  }
  CHECK(false);
}

Result<SeccompProgram> find_embedded(std::string_view name) {
  auto found = std::ranges::lower_bound(kEmbeddedPolicies, name, {}, &EmbeddedPolicy::name);
  if (found == kEmbeddedPolicies.end() || found->name != name) {
    return fail(Error(std::errc::no_such_file_or_directory,
                      format_text("this crosvm has no system call policy {} for {}; give one with "
                                  "--seccomp-policy-dir",
                                  name, name_of(host_policy_arch()))));
  }
  return SeccompProgram::compiled({found->code.begin(), found->code.end()});
}

Result<SeccompProgram> read_program(const std::string& path, const std::string& bytes) {
  if (bytes.empty() || bytes.size() % sizeof(sock_filter) != 0 ||
      bytes.size() > BPF_MAXINSNS * sizeof(sock_filter)) {
    return fail(Error::invalid(format_text(
        "{} is no compiled policy: it has {} bytes, not {} for each of 1 to {} instructions; "
        "compile it again, or remove it so that the .policy file beside it is used",
        path, bytes.size(), sizeof(sock_filter), BPF_MAXINSNS)));
  }
  std::vector<sock_filter> code(bytes.size() / sizeof(sock_filter));
  std::ranges::copy(std::as_bytes(std::span(bytes)),
                    std::as_writable_bytes(std::span(code)).begin());
  return SeccompProgram::foreign(std::move(code));
}

Result<SeccompProgram> compile_file(const std::string& path) {
  SeccompPolicy policy = TRY(parse_seccomp_policy(path, host_policy_arch()));
#ifdef CROSVM_SANITIZER_POLICY
  SeccompPolicy more = TRY(parse_seccomp_policy(CROSVM_SANITIZER_POLICY, host_policy_arch()));
  add_to_policy(policy, std::move(more));
#endif
  auto code = compile_seccomp_policy(policy, host_policy_arch());
  if (code) return SeccompProgram::compiled(*std::move(code));
  // A mistake in one line, also of an included file, has its place already.
  const bool placed = code.error().code() != std::errc::value_too_large;
  return fail(placed ? std::move(code).error() : std::move(code).error().context(path));
}

Result<SeccompProgram> find_in_directory(std::string_view name, const std::string& directory,
                                         bool may_be_compiled) {
  std::string path = format_text("{}/{}.bpf", directory, name);
  auto read = [&]() -> Result<SeccompProgram> {
    if (may_be_compiled) {
      auto bytes = read_policy_file(path);
      if (bytes) return read_program(path, *bytes);
      if (bytes.error().code() != std::errc::no_such_file_or_directory) {
        return fail(std::move(bytes).error());
      }
    }
    path = format_text("{}/{}.policy", directory, name);
    if (::access(path.c_str(), F_OK) != 0) {
      const Error why = Error::from_errno("opening", path);
      return fail(Error(why.code(), format_text("--seccomp-policy-dir: {}; put the policy there, "
                                                "or leave the option out for those that are built "
                                                "in",
                                                why.what())));
    }
    return compile_file(path);
  };
  SeccompProgram program = TRY(read());
  program.set_path(std::move(path));
  return program;
}

std::string_view likely_cause(int error) {
  switch (error) {
    case EACCES:
      return ": the process may still gain privileges; set no_new_privs first";
    case EINVAL:
      return ": the filter is malformed, or this kernel lacks a feature: it needs Linux 5.7 with "
             "CONFIG_SECCOMP_FILTER";
    case ENOSYS:
      return ": this kernel has no seccomp; it needs CONFIG_SECCOMP_FILTER";
    case ENOMEM:
      return ": too many or too long filters are in force already";
    case ESRCH:
      return ": a thread of the process has a filter that this one does not have";
    case EBUSY:
      return ": an earlier filter of the process has a listener";
    default:
      return "";
  }
}

}  // namespace

SeccompProgram SeccompProgram::compiled(std::vector<sock_filter> code) {
  SeccompProgram program(std::move(code));
  for (size_t i = 0; i < program.code_.size(); ++i) {
    const sock_filter& instruction = program.code_[i];
    if (instruction.code == (BPF_RET | BPF_K) && instruction.k == kSeccompDefaultMark) {
      program.defaults_.push_back(i);
    }
  }
  return program;
}

SeccompProgram SeccompProgram::foreign(std::vector<sock_filter> code) {
  return SeccompProgram(std::move(code));
}

void SeccompProgram::set_default(SeccompDefault action) {
  for (size_t place : defaults_) code_[place].k = action_code(action);
}

Result<SeccompProgram> find_seccomp_policy(std::string_view name,
                                           const SeccompPolicySource& source) {
  const bool may_be_compiled = source.action != SeccompDefault::kLog;
  SeccompProgram program = source.directory
                               ? TRY(find_in_directory(name, *source.directory, may_be_compiled))
                               : TRY(find_embedded(name));
  program.set_default(source.action);
  return program;
}

std::vector<std::string_view> embedded_seccomp_policies() {
  std::vector<std::string_view> names;
  for (const EmbeddedPolicy& each : kEmbeddedPolicies) names.push_back(each.name);
  return names;
}

Result<Fd> install_seccomp(const SeccompProgram& program, const SeccompInstall& options) {
  std::vector<sock_filter> code(program.code().begin(), program.code().end());
  sock_fprog description = {.len = static_cast<unsigned short>(code.size()), .filter = code.data()};
  unsigned flags = options.listener ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0;
  if (options.all_threads) {
    // Without ESRCH the id of a thread that cannot follow would look like a listener.
    flags |= SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH;  // Linux 5.7
  }
  long result = ::syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, &description);
  if (result < 0) {
    int error = errno;
    Error what = Error::from_errno("installing", "a system call filter", error);
    return fail(Error(what.code(), what.what() + std::string(likely_cause(error))));
  }
  return options.listener ? Fd(static_cast<int>(result)) : Fd();  // the kernel sets close-on-exec
}

}  // namespace crosvm
