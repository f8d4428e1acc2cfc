#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "agent_client.h"
#include "guest_run.h"
#include "vm_process.h"

namespace crosvm::test {

/// How a VM ended, once its agent's connection has: what it says last comes after that.
std::string fate_of(VmProcess& vm);

/// A guest that boots Debian's root disk, read-only unless `boot.root` says otherwise, and answers
/// through the agent on its port.
class AgentGuest {
 public:
  /// `boot.extra` are further flags of `run`; the root disk is /dev/vda. Fails the test when the
  /// agent does not answer.
  explicit AgentGuest(GuestBoot boot, const std::string& params = "");

  /// What a shell command in the guest says. Fails the test when there is no answer.
  AgentResult shell(const std::string& command,
                    std::chrono::milliseconds timeout = std::chrono::minutes(5));
  /// The same for a command that must succeed: what it wrote.
  std::string output_of(const std::string& command);
  /// Powers the guest off; the status of crosvm.
  std::optional<int> power_off();

  VmProcess& vm() { return *vm_; }

 private:
  /// What the guest waits for when a command took too long; nothing is asked of it afterwards.
  std::string stuck(const AgentResult& result);
  Result<void> wait_ready(std::chrono::seconds timeout);

  ScratchDirectory scratch_;
  std::optional<AgentClient> agent_;
  std::optional<VmProcess> vm_;
};

}  // namespace crosvm::test
