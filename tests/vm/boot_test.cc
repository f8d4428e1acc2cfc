// Stock Debian kernels boot: every image, entry, number of vCPUs and size of memory.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <map>
#include <sstream>

#include "guest_run.h"

namespace crosvm::test {
namespace {

struct Case {
  const char* kernel;
  const char* file;
  const char* entry;
  int vcpus;
  int memory_mib;
};

/// One boot for each pair of values of two columns: enough for every change.
std::vector<Case> sample() {
  return {
      {"cloud12", "vmlinuz", "auto", 1, 256},    {"cloud12", "vmlinux", "pvh", 4, 6144},
      {"generic12", "vmlinuz", "linux", 4, 256}, {"generic12", "vmlinux", "auto", 2, 6144},
      {"cloud13", "vmlinuz", "auto", 2, 256},    {"cloud13", "vmlinux", "linux", 1, 6144},
      {"cloud13", "vmlinux", "pvh", 1, 256},
  };
}

/// All of them: `./dev test --full`.
std::vector<Case> matrix() {
  std::vector<Case> all;
  for (const char* kernel : {"cloud12", "generic12", "cloud13"}) {
    for (int vcpus : {1, 2, 4}) {
      for (int memory_mib : {256, 6144}) {
        all.push_back({kernel, "vmlinuz", "auto", vcpus, memory_mib});
        all.push_back({kernel, "vmlinux", "linux", vcpus, memory_mib});
        all.push_back({kernel, "vmlinux", "pvh", vcpus, memory_mib});
      }
    }
  }
  return all;
}

std::vector<Case> cases() {
  return std::getenv("CROSVM_TEST_FULL") != nullptr ? matrix() : sample();
}

class BootTest : public testing::TestWithParam<Case> {};

/// What the guest says of itself, as KEY=VALUE lines.
constexpr const char* kReport =
    "echo cpus=$(nproc)\n"
    "echo memory_kib=$(awk '/MemTotal/ {print $2}' /proc/meminfo)\n"
    "echo time=$(date -u +%s)\n"
    "echo product=$(cat /sys/class/dmi/id/product_name)\n"
    "echo acpi_complaints=$(dmesg | grep -ciE 'ACPI (BIOS )?(Error|Warning)|Firmware Bug')\n"
    "echo clocksource=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)\n"
    "dmesg | grep -iE 'ACPI (BIOS )?(Error|Warning)|Firmware Bug'\n"
    "true\n";

std::map<std::string, std::string> parse(const std::string& report) {
  std::map<std::string, std::string> values;
  std::istringstream lines(report);
  for (std::string line; std::getline(lines, line);) {
    if (size_t equals = line.find('='); equals != std::string::npos) {
      values.emplace(line.substr(0, equals), line.substr(equals + 1));
    }
  }
  return values;
}

TEST_P(BootTest, ReachesUserSpaceWithTheMachineThatWasAskedFor) {
  const Case& boot = GetParam();
  GuestResult guest = run_in_guest({.kernel = boot.kernel,
                                    .file = boot.file,
                                    .entry = boot.entry,
                                    .vcpus = boot.vcpus,
                                    .memory_mib = boot.memory_mib},
                                   kReport);
  EXPECT_EQ(guest.status, 0);
  EXPECT_EQ(guest.vm_status, 0) << "a power-off is a stop";
  auto values = parse(guest.output);
  EXPECT_EQ(values["cpus"], std::to_string(boot.vcpus));
  long memory_mib = std::atol(values["memory_kib"].c_str()) / 1024;
  EXPECT_LE(memory_mib, boot.memory_mib);
  EXPECT_GE(memory_mib, boot.memory_mib * 3 / 4 - 40) << "the kernel's own share is small";
  EXPECT_EQ(values["product"], "crosvm");
  EXPECT_EQ(values["acpi_complaints"], "0") << guest.output;
  // Not a measurement: a clock that is not set is wrong by hours or years.
  EXPECT_NEAR(std::atof(values["time"].c_str()), static_cast<double>(std::time(nullptr)), 120);
}

INSTANTIATE_TEST_SUITE_P(Debian, BootTest, testing::ValuesIn(cases()), [](const auto& test) {
  const Case& boot = test.param;
  return std::string(boot.kernel) + "_" + boot.file + "_" + boot.entry + "_" +
         std::to_string(boot.vcpus) + "cpu_" + std::to_string(boot.memory_mib) + "mib";
});

}  // namespace
}  // namespace crosvm::test
