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

/// One thing that a device process must not be able to do.
struct ProbeAct {
  std::string_view name;
  /// The system call that it makes first and a policy denies; empty where something else stands in
  /// the way: the ring's restrictions, an answer that the policy gives itself.
  std::string_view call;
  /// Tries. Returns 0 or what it got when it succeeded, else minus an errno. Harmless to the host
  /// where it should succeed.
  long (*attempt)(const ProbeTargets& targets);
};

/// All of them, in an order in which each can follow the ones before.
std::span<const ProbeAct> probe_acts();

}  // namespace crosvm::test
