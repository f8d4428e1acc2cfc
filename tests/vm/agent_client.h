#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/json.h"
#include "base/result.h"
#include "guest/agent/frame.h"

namespace crosvm::test {

/// What a command in a guest is, apart from its words.
struct AgentOptions {
  std::string input = {};                      ///< what it can read
  std::chrono::milliseconds timeout{120'000};  ///< it is killed after that; 0 for never
};

/// How a command in a guest ended, and what it said.
struct AgentResult {
  int status = -1;         ///< exit status, or 128 + the signal that killed it, as a shell has it
  int signal = 0;          ///< that signal, or 0
  bool timed_out = false;  ///< killed because its time was up
  std::string output;
  std::string errors;
};

/// The host's side of the guest agent (docs/guest-agent.md).
///
/// A Unix socket listens at `path`; the VM connects to it, as its flag says: `--serial
/// type=unix-stream, hardware=virtio-console,name=agent,path=PATH,input-unix-stream,num=2`. The
/// guest is not trusted: what it sends is bounded, and every wait ends.
class AgentClient {
 public:
  using Milliseconds = std::chrono::milliseconds;
  /// Gets output as it comes; `is_error` tells standard errors.
  using Sink = std::function<void(bool is_error, std::string_view bytes)>;

  /// Listens at `path`, which must not exist. Errors: those of making the socket.
  static Result<AgentClient> listen(const std::string& path);
  /// On a connection that stands already.
  static AgentClient on(Fd connection);
  ~AgentClient();  ///< removes the socket
  AgentClient(AgentClient&& other) noexcept;
  AgentClient& operator=(AgentClient&&) = delete;

  /// The value of the VM's `--serial` that leads here.
  std::string serial_option() const;

  /// Waits until the VM has connected and its guest's agent answers; `run` does that by itself.
  /// Errors: timed_out; connection_reset when the VM ended.
  Result<void> wait_ready(Milliseconds timeout);

  /// Runs argv[0] in the guest. Errors: the agent could not start it; connection_reset when the
  /// guest ended or the VM closed the port; timed_out when no answer came in time, which leaves the
  /// connection unusable.
  Result<AgentResult> run(const std::vector<std::string>& argv, const AgentOptions& options = {});
  /// A shell command.
  Result<AgentResult> shell(const std::string& command, const AgentOptions& options = {}) {
    return run({"sh", "-c", command}, options);
  }
  /// `run` whose output goes to `sink` as it comes; the result has none.
  Result<AgentResult> stream(const std::vector<std::string>& argv, const AgentOptions& options,
                             const Sink& sink);

  /// Asks the guest to write its disks out and power off, without any of its own ceremony; returns
  /// when the agent has heard it.
  Result<void> power_off();

  /// Bytes that are no frame, for tests of the agent itself.
  Result<void> send_raw(std::string_view bytes);
  /// The next message, whatever it is. Errors: timed_out, connection_reset, and invalid_argument or
  /// message_size for what is no frame.
  Result<Json> receive(Milliseconds timeout) { return receive_until(Clock::now() + timeout); }

 private:
  using Clock = std::chrono::steady_clock;
  AgentClient() = default;
  Result<void> accept(Clock::time_point deadline);
  Result<Json> receive_until(Clock::time_point deadline);
  Result<void> wait_readable(const Fd& fd, Clock::time_point deadline);

  std::string path_;
  Fd listener_;
  Fd connection_;
  agent::FrameReader reader_;
  bool ready_ = false;
  uint64_t last_id_ = 0;
};

}  // namespace crosvm::test
