#include "jail/enter_jail.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/format.h"
#include "jail/jail_namespaces.h"
#include "jail/jail_root.h"

namespace crosvm {
namespace {

constexpr std::string_view kHostName = "crosvm";

/// Stacks of threads count for RLIMIT_DATA, and a disk may have eighty.
[[maybe_unused]] constexpr size_t kStackBytes = size_t{1} << 20;

constexpr unsigned long kSecureBits =
    SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
    SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

std::unexpected<Error> failed(std::string_view doing, std::string_view object) {
  int error = errno;
  Error what = Error::from_errno(doing, object, error);
  return fail(Error(what.code(), what.what() + sandbox_hint(error)));
}

/// What the C library would look for in files, or be generous with, later.
Result<void> settle_c_library() {
  ::tzset();                  // reads the time zone's file
  ::mallopt(M_ARENA_MAX, 1);  // trimming another arena reads /proc; one also takes less memory
#ifndef CROSVM_SANITIZE
  pthread_attr_t attributes;
  int error = ::pthread_attr_init(&attributes);
  if (error == 0) error = ::pthread_attr_setstacksize(&attributes, kStackBytes);
  if (error == 0) error = ::pthread_setattr_default_np(&attributes);
  if (error != 0) {
    return fail(Error::from_errno("setting", "the size of the stacks of threads", error));
  }
#endif
  return {};
}

Result<void> set_identity(const std::string& name) {
  ::prctl(PR_SET_NAME, name.substr(0, 15).c_str());
  ::umask(077);
  if (::sethostname(kHostName.data(), kHostName.size()) != 0) {
    return failed("setting", "the host name of a device process");
  }
  return {};
}

Result<void> limit(__rlimit_resource resource, std::string_view name, uint64_t value) {
  rlimit present = {};
  if (::getrlimit(resource, &present) != 0) return failed("reading the limit", name);
  value = std::min<uint64_t>(value, present.rlim_max);  // raising is not ours
  const rlimit wanted = {.rlim_cur = value, .rlim_max = value};
  if (::setrlimit(resource, &wanted) != 0) return failed("setting the limit", name);
  return {};
}

Result<void> set_limits(const JailConfig& config) {
  TRY(limit(RLIMIT_NOFILE, "RLIMIT_NOFILE", config.descriptors));
  TRY(limit(RLIMIT_CORE, "RLIMIT_CORE", 0));  // a core has the guest's memory in it
  TRY(limit(RLIMIT_FSIZE, "RLIMIT_FSIZE", config.file_bytes));
#ifndef CROSVM_SANITIZE
  TRY(limit(RLIMIT_DATA, "RLIMIT_DATA", config.data_bytes));
#endif
  if (!config.starts_threads) TRY(limit(RLIMIT_NPROC, "RLIMIT_NPROC", 0));
  return {};
}

/// The bounding set, of as many capabilities as this kernel knows.
Result<void> drop_bounding_set() {
  unsigned long capability = 0;
  while (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) ++capability;
  // EINVAL: there is none of that number.
  if (errno != EINVAL) return failed("dropping", format_text("capability {}", capability));
  return {};
}

/// In this order: each step needs a capability that a later one drops.
Result<void> drop_capabilities() {
  constexpr std::string_view kObject = "the capabilities of a device process";
  TRY(drop_bounding_set());
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) {
    return failed("clearing", kObject);
  }
  if (::prctl(PR_SET_SECUREBITS, kSecureBits, 0, 0, 0) != 0) return failed("locking", kObject);
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(__NR_capset, &header, none) != 0) return failed("dropping", kObject);
  return {};
}

Result<void> give_up_privileges() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed("setting", "no_new_privs");
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return failed("clearing", "dumpable");
  return {};
}

Result<void> enter(const JailConfig& config) {
  TRY(settle_c_library());
  TRY(set_identity(config.name));
  TRY(pivot_into_root(config.pivot_root, config.resolv_conf));
  TRY(set_limits(config));
  TRY(drop_capabilities());
  return give_up_privileges();
}

}  // namespace

Result<void> enter_jail(const JailConfig& config) {
  return with_context(enter(config), "entering the sandbox");
}

}  // namespace crosvm
