#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cli/process_facts.h"

namespace crosvm::doctor {

/// What the descriptors of a VM's processes are for, as far as what they share tells.
class DescriptorPurposes {
 public:
  /// `tree` as process_tree returns it, `peers` as socket_peers does; `tree` outlives this.
  DescriptorPurposes(const std::vector<ProcessFacts>& tree, std::map<uint64_t, uint64_t> peers);

  /// A phrase, like "guest memory" or "socket to block0 (pid 12)".
  std::string of(const ProcessFacts& process, const DescriptorFacts& descriptor) const;
  /// "VMM", "spawner", or "device block0".
  std::string role_of(const ProcessFacts& process) const;

 private:
  std::string of_standard(const ProcessFacts& process, const DescriptorFacts& descriptor) const;
  std::string of_eventfd(const ProcessFacts& process, const DescriptorFacts& descriptor) const;
  std::string of_socket(const ProcessFacts& process, const DescriptorFacts& descriptor) const;
  std::string of_process(pid_t pid) const;
  /// The first other process that has the object of that kind and identity, or nullptr.
  const ProcessFacts* other_holder(const ProcessFacts& process, std::string_view kind,
                                   uint64_t identity) const;
  bool is_device(const ProcessFacts& process) const;

  const std::vector<ProcessFacts>& tree_;
  std::map<uint64_t, uint64_t> peers_;
};

}  // namespace crosvm::doctor
