#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "base/packet_socket.h"
#include "base/result.h"
#include "jail/worker_end.h"

/// What the VMM and its spawner tell each other, one packet for each.
namespace crosvm::spawner {

/// Start a worker; the first descriptor is its channel, the second, if there is one, the program
/// that it executes instead of ours.
struct Spawn {
  uint32_t worker = 0;
  std::string name;
  std::string program;        ///< the path of that program, for errors; else empty
  bool host_network = false;  ///< in the network where the VMM was started
};
struct Kill {
  uint32_t worker = 0;
};
/// This file, if it is still the same then, is yours to remove when I am gone.
struct GuardSocket {
  std::string path;
  uint64_t device = 0;
  uint64_t inode = 0;
};
struct GuardTerminal {};
/// The descriptor is the listener of the filter `policy`, in force for the VMM's thread `thread`.
struct Supervise {
  std::string policy;
  std::string thread;
};
/// I end now, in good order.
struct Farewell {};
using Request = std::variant<Spawn, Kill, GuardSocket, GuardTerminal, Supervise, Farewell>;

/// To the VMM: that worker is no more.
struct Ended {
  uint32_t worker = 0;
  WorkerEnd end = WorkerEnd::kDied;
  std::string cause;
};

inline constexpr PacketLimits kPackets{.bytes = 8192, .fds = 2};

Packet encode(const Request& request);
Result<Request> decode_request(const std::string& text);
Packet encode(const Ended& ended);
Result<Ended> decode_ended(const std::string& text);

}  // namespace crosvm::spawner
