#include "virtio/device_rings.h"

#include <cstdint>
#include <utility>

#include "base/log.h"

namespace crosvm {

std::vector<IoUring> make_device_rings(const std::string& name, size_t count, const Fd& held) {
  // Operations that one submission can hold: a queue's worth of requests.
  constexpr uint32_t kEntries = 256;
  std::vector<IoUring> rings;
  for (size_t i = 0; i < count; ++i) {
    auto ring = IoUring::create(kEntries, held);
    if (!ring) {
      log::info("{}: no io_uring: {}", name, ring.error().what());
      return {};
    }
    rings.push_back(std::move(*ring));
  }
  return rings;
}

}  // namespace crosvm
