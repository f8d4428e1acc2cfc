#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "platform/serial_config.h"

namespace crosvm {

/// How an ELF kernel is entered (ours, beyond the reference).
enum class KernelEntry {
  kAuto,   ///< 64-bit entry when it lies in a loaded segment, PVH otherwise
  kLinux,  ///< the 64-bit (or 32-bit) Linux boot protocol
  kPvh,    ///< the PVH note's 32-bit entry
};

/// A whole VM as the user asked for it: parsed and checked, nothing opened yet.
struct Config {
  std::string kernel;                 ///< required until `--bios` exists
  std::optional<std::string> initrd;
  std::vector<std::string> params;    ///< in order, after the built-in ones
  KernelEntry kernel_entry = KernelEntry::kAuto;
  uint64_t memory_mib = 256;
  bool hugepages = false;
  bool lock_guest_memory = false;
  uint32_t vcpus = 1;
  bool smt = true;                    ///< false with `--no-smt`
  std::vector<SerialConfig> serial;   ///< complete: defaults of cli.md 1.7 already applied
  std::optional<std::string> socket;
  std::string kvm_device = "/dev/kvm";
  bool i8042 = true;
  bool rtc = true;
  bool s2idle = false;
  std::vector<std::string> acpi_tables;  ///< paths
  std::optional<std::string> name;    ///< process name
};

}  // namespace crosvm
