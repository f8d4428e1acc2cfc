#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "arch/kernel_entry.h"
#include "arch/nested.h"
#include "devices/vsock/vsock_config.h"
#include "jail/sandbox_options.h"
#include "platform/serial_config.h"
#include "vmm/device_request.h"
#include "vmm/net_request.h"
#include "vmm/vhost_user_request.h"

namespace crosvm {

/// `--smbios` (cli.md 1.5): what is not given keeps the machine's own value.
struct SmbiosIdentity {
  std::optional<std::string> bios_vendor;
  std::optional<std::string> bios_version;
  std::optional<std::string> manufacturer;
  std::optional<std::string> product_name;
  std::optional<std::string> serial_number;
  std::optional<std::array<uint8_t, 16>> uuid;  ///< in the order of the text (RFC 4122)
  std::vector<std::string> oem_strings;         ///< `--oem-strings` after those of `--smbios`
};

/// A whole VM as the user asked for it: parsed and checked, nothing opened yet.
struct Config {
  std::string kernel;  ///< required until `--bios` exists
  std::optional<std::string> initrd;
  std::vector<std::string> params;  ///< in order, after the built-in ones
  KernelEntry kernel_entry = KernelEntry::kAuto;
  uint64_t memory_mib = 256;
  bool hugepages = false;
  bool lock_guest_memory = false;
  uint32_t vcpus = 1;
  bool smt = true;                            ///< false with `--no-smt`
  std::vector<SerialConfig> serial;           ///< complete (cli.md 1.7), by hardware, then number
  std::vector<DeviceRequest> disks;           ///< in the order of the command line
  std::optional<std::string> root_parameter;  ///< "root=/dev/vda ro", behind all `params`
  std::optional<VsockConfig> vsock;
  std::vector<NetRequest> nets;              ///< in the order of the guest's cards
  std::vector<VhostUserRequest> vhost_user;  ///< in the order of the command line
  /// How long a missing back-end is waited for; none: not at all.
  std::optional<std::chrono::milliseconds> vhost_user_connect_timeout;
  bool rng = true;          ///< false with `--no-rng`
  bool virtio_intx = true;  ///< false with `--disable-virtio-intx`
  bool sandbox = true;      ///< false with `--disable-sandbox`
  SandboxOptions sandbox_options;
  std::optional<std::string> socket;
  std::string kvm_device = "/dev/kvm";
  bool i8042 = true;
  bool rtc = true;
  std::vector<std::string> acpi_tables;  ///< paths
  SmbiosIdentity smbios;
  Nested nested = Nested::kAuto;
  std::optional<std::string> name;  ///< process name
};

}  // namespace crosvm
