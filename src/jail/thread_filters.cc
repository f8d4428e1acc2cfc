#include "jail/thread_filters.h"

#include <linux/capability.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "base/start_error.h"

namespace crosvm {
namespace {

constexpr std::array<std::string_view, 3> kPolicies = {"vmm_control", "vmm_relay", "vmm_vcpu"};

bool has_policy(const std::string& directory, std::string_view name) {
  const std::string path = format_text("{}/{}", directory, name);
  return ::access((path + ".policy").c_str(), F_OK) == 0 ||
         ::access((path + ".bpf").c_str(), F_OK) == 0;
}

Result<SeccompProgram> find_program(std::string_view name, const SandboxOptions& options,
                                    SeccompDefault denied_call) {
  SeccompPolicySource source{.directory = options.seccomp_policy_dir, .action = denied_call};
  // A directory made for devices alone, as those of other programs are, leaves our threads as is.
  if (source.directory && !has_policy(*source.directory, name)) source.directory.reset();
  return find_seccomp_policy(name, source);
}

/// Sends a filter's listener to the spawner on a thread that has no filter: the one that just got
/// it may not be allowed to, and nobody would ever hear why it stands still.
class ListenerSender {
 public:
  ListenerSender(Spawner& spawner, const std::string& policy, const std::string& thread)
      : thread_([this, &spawner, policy, thread] { send(spawner, policy, thread); }) {}
  /// Waits until it was sent. The calling thread's system calls are answered by then.
  ~ListenerSender() { thread_.join(); }

  /// Without a system call.
  void give(Fd listener) { listener_.store(listener ? listener.release() : kNone); }

 private:
  static constexpr int kWaiting = -2;
  static constexpr int kNone = -1;

  void send(Spawner& spawner, const std::string& policy, const std::string& thread) {
    int raw = kWaiting;
    while ((raw = listener_.load()) == kWaiting) {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    if (raw == kNone) return;
    if (auto sent = spawner.supervise(policy, thread, Fd(raw)); !sent) {
      log::error("{}: {}", thread, sent.error().what());  // without a spawner the VM ends anyway
    }
  }

  std::atomic<int> listener_ = kWaiting;
  std::thread thread_;
};

}  // namespace

Result<ThreadFilters> ThreadFilters::prepare(Spawner& spawner, const SandboxOptions& options) {
  // What is opened when it is needed first, and could not be then: the log's sinks, and what the C
  // library looks up, the time zone and how to trim the heap of another thread.
  log::open_sinks();
  ::tzset();
  ::mallopt(M_ARENA_MAX, 1);
  ThreadFilters filters(
      spawner, options.seccomp_log_failures ? SeccompDefault::kLog : SeccompDefault::kNotify);
  for (size_t role = 0; role < kRoles; ++role) {
    filters.programs_[role] = TRY(find_program(kPolicies[role], options, filters.denied_call_));
  }
  return filters;
}

Result<void> ThreadFilters::give_up_privileges() {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capset, &header, none) != 0) {  // the ambient ones go with the permitted
    return fail(Error::from_errno("dropping", "the capabilities of a thread"));
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return fail(Error::from_errno("setting", "no_new_privs"));
  }
  return {};
}

Result<void> ThreadFilters::enter(Role role, const std::string& name) const {
  TRY(give_up_privileges());
  const size_t index = static_cast<size_t>(role);
  const bool listener = denied_call_ == SeccompDefault::kNotify;
  if (!listener) {
    TRY(install_seccomp(*programs_[index], {.all_threads = false, .listener = false}));
    return {};
  }
  try {  // std::thread has no other way to say that the system refused
    ListenerSender sender(*spawner_, std::string(kPolicies[index]), name);
    auto installed = install_seccomp(*programs_[index], {.all_threads = false, .listener = true});
    sender.give(installed ? std::move(*installed) : Fd());
    if (!installed) return fail(std::move(installed).error());
  } catch (const std::system_error& refused) {
    return fail(
        start_error("starting a thread for", "a system call filter", refused.code().value()));
  }
  return {};
}

}  // namespace crosvm
