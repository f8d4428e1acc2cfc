#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct io_uring;

namespace crosvm::test {

/// What a process in a jail finds to attack.
struct ProbeTargets {
  pid_t outside = 1;         ///< a process, as the outside numbers it
  io_uring* ring = nullptr;  ///< its own restricted ring, or none
  /// Descriptors that it should have; every other open one is another device's.
  std::vector<int> own_descriptors;
  /// The inode of what another device serves; in place of own_descriptors, which is then unused.
  std::optional<uint64_t> other_file = std::nullopt;
};

/// What becomes of an act in the process of the user network, whose work sockets are, and whose
/// root has a file that it reads.
enum class UserNetAnswer {
  kDenied,   ///< as in every other process
  kRefused,  ///< its policy answers the call itself: it is not permitted
  kFails,    ///< its policy allows the call, which leads nowhere
  kHarmless  ///< it succeeds, and there is nothing to be had by it
};

/// One thing that a device process must not be able to do.
struct ProbeAct {
  std::string_view name;
  /// The system call that it makes first and a policy denies; empty where something else stands in
  /// the way: the ring's restrictions, an answer that the policy gives itself.
  std::string_view call;
  /// Tries. Returns 0 or what it got when it succeeded, else minus an errno. Harmless to the host
  /// where it should succeed.
  long (*attempt)(const ProbeTargets& targets);
  UserNetAnswer user_net = UserNetAnswer::kDenied;
};

inline constexpr std::string_view kUserNetPolicy = "net_user_device";
/// Whether `policy` denies the act by the name of its call.
inline bool is_denied_by_name(const ProbeAct& act, std::string_view policy) {
  return !act.call.empty() && (policy != kUserNetPolicy || act.user_net == UserNetAnswer::kDenied);
}
/// Whether `result` is what an act that is not denied by name may give under `policy`.
bool is_harmless_result(const ProbeAct& act, std::string_view policy, long result);

/// All of them, in an order in which each can follow the ones before.
std::span<const ProbeAct> probe_acts();

}  // namespace crosvm::test
