#pragma once

#include <array>
#include <cstdint>
#include <istream>
#include <map>
#include <set>
#include <string>
#include <tuple>

namespace crosvm {

/// One system call, with the six registers of its arguments; those it does not take are 0.
struct RecordedCall {
  std::string name;
  std::array<uint64_t, 6> arguments{};

  bool operator<(const RecordedCall& other) const {
    return std::tie(name, arguments) < std::tie(other.name, other.arguments);
  }
};

/// By the name of a policy, what was called under it.
using RecordedCalls = std::map<std::string, std::set<RecordedCall>>;

/// Reads what `strace -f --decode-pids=comm,pidns -e 'raw=!execve,clone,clone3'` wrote. A call
/// counts from where its thread has a filter on: its own, or that of the thread that made it. The
/// thread's name tells which one, or the command line of `crosvm device`.
RecordedCalls read_recorded_calls(std::istream& trace);

}  // namespace crosvm
