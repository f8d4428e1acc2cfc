#include "agent_guest.h"

#include <gtest/gtest.h>

namespace crosvm::test {

AgentGuest::AgentGuest(GuestBoot boot, const std::string& params) {
  auto agent = AgentClient::listen(scratch_.path() + "/agent");
  if (!agent) {
    ADD_FAILURE() << agent.error().what();
    return;
  }
  agent_.emplace(std::move(*agent));
  if (boot.root.empty()) boot.root = image("root", "debian12.img") + ",ro,root";
  std::vector<std::string> flags = {"--block", boot.root, "--serial", agent_->serial_option()};
  boot.extra.insert(boot.extra.begin(), flags.begin(), flags.end());
  vm_.emplace(guest_arguments(boot, params));
  if (auto ready = wait_ready(std::chrono::seconds(150)); !ready) {
    const bool ended = ready.error().code() != std::errc::timed_out;
    ADD_FAILURE() << "the guest's agent: " << ready.error().what() << (ended ? fate_of(*vm_) : "");
    agent_.reset();
  }
}

Result<void> AgentGuest::wait_ready(std::chrono::seconds timeout) {
  const auto late = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    auto ready = agent_->wait_ready(std::chrono::seconds(5));
    if (ready || ready.error().code() != std::errc::timed_out) return ready;
    // A VM that ended will not answer.
    if (vm_->wait_exit(std::chrono::seconds(0)) || std::chrono::steady_clock::now() > late)
      return ready;
  }
}

AgentResult AgentGuest::shell(const std::string& command, std::chrono::milliseconds timeout) {
  if (!agent_) return {};
  auto result = agent_->shell(command, {.timeout = timeout});
  if (result) return std::move(*result);
  const bool ended = result.error().code() != std::errc::timed_out;
  ADD_FAILURE() << command << ": " << result.error().what() << (ended ? fate_of(*vm_) : "");
  agent_.reset();  // no further waiting
  return {};
}

std::string fate_of(VmProcess& vm) {
  const auto status = vm.wait_exit(std::chrono::seconds(20));
  if (!status) return "; the VM runs on";
  constexpr size_t kShown = 300;
  const std::string& said = vm.errors();
  const std::string words = vm.last_words();
  return "; the VM ended with " + std::to_string(*status) +
         " and said last: " + said.substr(said.size() > kShown ? said.size() - kShown : 0) +
         (words.empty() ? "" : "; its kernel said: " + words);
}

std::string AgentGuest::output_of(const std::string& command) {
  AgentResult result = shell(command);
  EXPECT_EQ(result.status, 0) << command << "\n" << result.output << result.errors << stuck(result);
  return result.output;
}

std::string AgentGuest::stuck(const AgentResult& result) {
  if (!result.timed_out) return "";
  const AgentResult facts =
      shell("tail -n +1 /sys/block/vd*/inflight; cat /proc/interrupts; dmesg | tail -n 20",
            std::chrono::seconds(30));
  agent_.reset();  // what follows would be stuck as well
  return "stuck; the guest then:\n" + facts.output;
}

std::optional<int> AgentGuest::power_off() {
  if (!agent_) return std::nullopt;
  auto told = agent_->power_off();
  EXPECT_TRUE(told.has_value()) << told.error().what();
  return vm_->wait_exit();
}

}  // namespace crosvm::test
