#pragma once

#include <functional>
#include <string>

#include "base/fd.h"
#include "base/json.h"
#include "guest/agent/command.h"
#include "guest/agent/frame.h"

namespace crosvm::agent {

/// Serves one connection to the host: says hello, then answers requests one after the other, as
/// docs/guest-agent.md has it. No input, however malformed, ends it.
class Session {
 public:
  /// `port` is a virtio port or a socket; it becomes non-blocking. `power_off` ends the guest.
  Session(Fd port, std::function<void()> power_off);

  /// Returns when the host or the port has gone away; a command that ran is killed then. Says
  /// whether there had been a host at all.
  bool serve();

 private:
  bool send_pending();
  bool flush();
  void send(const Json& message) { outgoing_ += encode_frame(message); }
  bool receive();
  bool recover();
  bool answer(const Json& request);
  bool run(uint64_t id, const Json& request);
  bool pump(uint64_t id, Command& command, int timeout_ms, bool& ended);
  void drain(uint64_t id, Command& command);
  void send_output(uint64_t id, std::string_view name, const std::string& bytes);

  Fd port_;
  std::function<void()> power_off_;
  FrameReader reader_;
  std::string outgoing_;
};

}  // namespace crosvm::agent
