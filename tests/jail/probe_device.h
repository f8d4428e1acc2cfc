#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "virtio/device_factory.h"

namespace crosvm::test {

/// `act=N,outside=PID,other=INODE,image=PATH`
struct ProbeConfig {
  /// Which of probe_acts; none: tells what descriptors it has.
  std::optional<uint32_t> act;
  bool flood = false;             ///< instead: asks for files without end, and takes no answer
  uint32_t outside = 1;           ///< ProbeTargets::outside
  std::optional<uint64_t> other;  ///< ProbeTargets::other_file
  std::string image;              ///< a file that it serves, or would
};

/// A device that is taken over as soon as its process has entered its jail: it tries one act with
/// what a device has, a file and the ring of its process among it, and then cannot be made. The
/// error says what came of the act: "the act gave -1".
struct ProbeFactory {
  static constexpr std::string_view kName = "probe";
  static constexpr std::string_view kPolicy = "rng_device";  // tests put others in its place
  using Config = ProbeConfig;
  struct Resources {
    Fd image;
    template <class V>
    void visit(V&& each) {
      each(image);
    }
  };
  static Result<Config> parse(const KeyValues& text);
  static Result<Resources> open(const Config& config);
  static size_t rings(const Config& config);
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources resources,
                                                      DeviceContext context);
};
static_assert(DeviceFactory<ProbeFactory>);

/// For worker_main of a program that tests run in: the probe beside the devices that there are.
const DeviceType* find_probe(std::string_view name);

}  // namespace crosvm::test
