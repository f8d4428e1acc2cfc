#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace crosvm::test {

/// What a command that ran in a guest said.
struct GuestResult {
  int status = -1;     ///< exit status of the command in the guest
  std::string output;  ///< without the markers
  std::optional<int> vm_status;
};

/// How to boot a guest; the rest is the tests' common minimum.
struct GuestBoot {
  std::string kernel = "cloud12";  ///< folder of the image
  std::string file = "vmlinuz";    ///< bzImage, or the extracted "vmlinux"
  std::string entry = "auto";      ///< --kernel-entry
  int vcpus = 1;
  int memory_mib = 512;
  std::string root = {};  ///< value of --block for an AgentGuest's /dev/vda, for Debian's root disk
  std::vector<std::string> extra = {};  ///< further flags of `run`
};

/// The arguments of `crosvm` that boot `boot` with `params` on the kernel command line.
std::vector<std::string> guest_arguments(const GuestBoot& boot, const std::string& params);

/// The word for the kernel command line that makes the guest run `command` and power off.
std::string run_word(std::string_view command);

/// Boots, runs `command` in the guest, waits for its power-off.
GuestResult run_in_guest(const GuestBoot& boot, const std::string& command);

}  // namespace crosvm::test
