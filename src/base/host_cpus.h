#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace crosvm {

/// Which host CPUs are online (cli.md 7.1), as it was when this was read.
class HostCpus {
 public:
  /// Reads below `sysfs_cpu`, normally /sys/devices/system/cpu. `configured` is the number of
  /// configured CPUs, up to which the files of single CPUs are asked where the list cannot be read.
  static HostCpus read(const std::string& sysfs_cpu, uint32_t configured);

  bool is_online(uint32_t id) const;
  /// The ids below `configured` that are online, rising.
  std::vector<uint32_t> online_ids() const;
  /// Configured CPUs, online or not.
  uint32_t configured() const { return configured_; }

 private:
  explicit HostCpus(uint32_t configured) : configured_(configured) {}
  void add_list(std::string_view list);
  void add_single_files(const std::string& sysfs_cpu);

  uint32_t configured_;
  std::vector<std::pair<uint32_t, uint32_t>> online_;  // inclusive ranges
};

/// Those of this machine. The first call reads them, later hotplug is not noticed: call it once at
/// start-up, before any sandbox. Thread-safe.
const HostCpus& host_cpus();

/// The system's own count of online CPUs, which may differ from `host_cpus()` (cli.md 7.1).
uint32_t online_cpu_count();

}  // namespace crosvm
