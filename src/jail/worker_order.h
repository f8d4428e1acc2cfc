#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "base/log.h"
#include "base/packet_socket.h"
#include "base/result.h"
#include "jail/seccomp_filter.h"
#include "virtio/device_backend.h"
#include "virtio/device_factory.h"

namespace crosvm {

/// All that a worker must know, in one packet on its control socket.
struct WorkerOrder {
  std::string device;  ///< DeviceType::name
  std::string name;    ///< of this one, for logs: "block0"
  std::string text;    ///< its configuration, of which the descriptors are in `resources`
  log::Options logging;
  /// `--pivot-root`; none: an empty root of its own.
  std::optional<std::string> pivot_root;
  /// What stands in its /etc/resolv.conf; empty: nothing, not even the file.
  std::string resolv_conf = {};
  /// The system call policy, compiled in; `filter`, when it is there, is the program instead.
  std::string policy;
  SeccompDefault denied_call = SeccompDefault::kNotify;
  bool restarts = false;  ///< another process takes its place when it dies

  Fd frontend;  ///< a connected vhost-user socket; none: a packet brings it later
  Fd filter;    ///< a file with a BPF program (`--seccomp-policy-dir`)
  /// The write end of a pipe that is to end with the last of the worker's I/O.
  Fd io_witness;
  PackedResources resources;
};

/// The same with duplicates of the descriptors. Errors: the errno of fcntl.
Result<WorkerOrder> duplicate(const WorkerOrder& order);

inline constexpr PacketLimits kWorkerPackets{.bytes = size_t{128} << 10, .fds = 253};

/// An in-memory file with `program`, as WorkerOrder::filter. `name` names the policy in errors,
/// which are those of memfd_create and write.
Result<Fd> file_with_program(const SeccompProgram& program, const std::string& name);

/// The order's descriptors move into the packet. Errors: invalid_argument for more than a packet
/// can take.
Result<Packet> encode_worker_order(WorkerOrder order);
Result<WorkerOrder> decode_worker_order(Packet packet);

/// The connected vhost-user socket for a worker whose order had none, once that has said that its
/// device is ready.
Packet encode_frontend(Fd frontend);
/// Errors: invalid_argument for another packet.
Result<Fd> decode_frontend(Packet packet);

/// The worker's answer: its device is ready, or it cannot be.
Packet encode_worker_ready(const DeviceInfo& info);
Packet encode_worker_failed(const Error& error);
/// Errors: what the worker said, or invalid_argument for what is no answer.
Result<DeviceInfo> decode_worker_answer(const Packet& packet);

}  // namespace crosvm
