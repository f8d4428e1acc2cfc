#pragma once

#include <cstddef>
#include <deque>
#include <string>

#include "base/log_limit.h"
#include "base/packet_socket.h"
#include "base/result.h"
#include "virtio/device_command.h"

namespace crosvm {

/// The VMM's end of what a device's process is asked for (DeviceCommand), on the process's control
/// socket: one command at a time, so that no send has to wait for the process. Those that come
/// meanwhile wait, those too that come while a process takes the place of another.
class WorkerCommands {
 public:
  /// Commands that may wait.
  static constexpr size_t kMost = 64;

  /// `name` names the device.
  explicit WorkerCommands(std::string name) : name_(std::move(name)) {}
  ~WorkerCommands() { close(); }
  WorkerCommands(const WorkerCommands&) = delete;
  WorkerCommands& operator=(const WorkerCommands&) = delete;

  /// `done` is called once, perhaps before this returns. Errors: what the device says;
  /// device_or_resource_busy when too many wait; not_connected when the process ends meanwhile;
  /// message_size for more than a packet can take.
  void ask(DeviceCommand command, CommandDone done);
  /// A process serves the device; `channel` lives until `lost` or `close`.
  void serve(PacketSocket& channel);
  /// A packet from that process. Whether it is an answer.
  bool answered(const Packet& packet);
  /// It has gone: nobody knows what became of what it was asked. Others wait for the next.
  void lost();
  /// There will be no other.
  void close();

 private:
  struct Waiting {
    DeviceCommand command;
    CommandDone done;
  };
  void send_next();
  void end_first(Result<std::string> answer);

  const std::string name_;
  LogLimit limit_{"device processes that speak unasked"};
  PacketSocket* channel_ = nullptr;  // of the process that serves
  bool asked_ = false;               // it owes the answer to the first
  bool closed_ = false;
  std::deque<Waiting> waiting_;
};

/// One packet on a worker's control socket. Errors: message_size for more than it can take.
Result<Packet> encode_device_command(DeviceCommand command);
/// Errors: invalid_argument for what is none.
Result<DeviceCommand> decode_device_command(Packet packet);

/// The worker's answer.
Packet encode_command_answer(const Result<std::string>& answer);
/// The worker is not trusted. Outer errors: invalid_argument for what is no answer.
Result<Result<std::string>> decode_command_answer(const Packet& packet);

}  // namespace crosvm
