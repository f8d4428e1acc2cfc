#pragma once

#include <chrono>

#include "base/fd.h"
#include "base/packet_socket.h"

namespace crosvm {

/// The descriptors that a worker finds open beside the standard ones.
inline constexpr int kWorkerChannel = 3;   ///< PacketSocket: its WorkerOrder, its answer
inline constexpr int kWorkerListener = 4;  ///< PacketSocket: where it sends its seccomp listener
inline constexpr PacketLimits kListenerPackets{.bytes = 64, .fds = 1};

/// A copy of `fd`, close-on-exec, above the numbers that are given out here. Safe between clone and
/// exec. -1 and errno: EMFILE where a process may have no such number.
int out_of_the_way(int fd);

/// How long workers that were let go of in good order may take to end by themselves.
inline constexpr std::chrono::seconds kWorkersPatience{5};

/// `argv[0]` of a worker.
inline constexpr char kWorkerProgram[] = "crosvm-worker";

/// The life of the spawner: serves `vmm` until that closes, then ends every worker, cleans up and
/// exits. For a process of one thread that has just been forked.
/// `vmm_process`: the VMM's pidfd.
[[noreturn]] void run_spawner(Fd vmm, Fd vmm_process);

}  // namespace crosvm
