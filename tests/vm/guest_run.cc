#include "guest_run.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "vm_process.h"

namespace crosvm::test {
namespace {

constexpr std::string_view kBegin = "@@crosvm-begin@@\n";
constexpr std::string_view kEnd = "\n@@crosvm-exit ";

std::string base64(std::string_view text) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string encoded;
  for (size_t at = 0; at < text.size(); at += 3) {
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) {
      group = group << 8 | (at + i < text.size() ? static_cast<uint8_t>(text[at + i]) : 0);
    }
    for (size_t i = 0; i < 4; ++i) {
      bool padding = at + i > text.size();
      encoded += padding ? '=' : kDigits[group >> (18 - 6 * i) & 63];
    }
  }
  return encoded;
}

}  // namespace

std::string run_word(std::string_view command) { return "crosvm.run=" + base64(command); }

std::vector<std::string> guest_arguments(const GuestBoot& boot, const std::string& params) {
  std::vector<std::string> arguments = {"--extended-status", "--no-syslog", "run"};
  arguments.insert(arguments.end(), {"-m", std::to_string(boot.memory_mib)});
  arguments.insert(arguments.end(), {"-c", std::to_string(boot.vcpus)});
  arguments.insert(arguments.end(), {"-i", image(boot.kernel, "initrd")});
  arguments.insert(arguments.end(), {"-p", "quiet " + params});
  if (boot.entry != "auto") arguments.insert(arguments.end(), {"--kernel-entry", boot.entry});
  arguments.insert(arguments.end(), boot.extra.begin(), boot.extra.end());
  arguments.push_back(image(boot.kernel, boot.file));
  return arguments;
}

GuestResult run_in_guest(const GuestBoot& boot, const std::string& command) {
  VmProcess vm(guest_arguments(boot, run_word(command)));
  GuestResult result;
  result.vm_status = vm.wait_exit(std::chrono::seconds(180));
  EXPECT_TRUE(result.vm_status.has_value()) << "the guest did not power off";
  const std::string& all = vm.output();
  size_t begin = all.find(kBegin);
  size_t end = all.rfind(kEnd);
  if (begin == std::string::npos || end == std::string::npos) {
    ADD_FAILURE() << "the guest did not run the command";
    return result;
  }
  begin += kBegin.size();
  result.output = begin < end ? all.substr(begin, end - begin) : "";
  result.status = std::stoi(all.substr(end + kEnd.size()));
  return result;
}

}  // namespace crosvm::test
