#include "virtio/rig/driver_ring.h"

#include "virtio/rig/packed_driver_ring.h"
#include "virtio/rig/split_driver_ring.h"

namespace crosvm {

std::unique_ptr<DriverRing> DriverRing::create(RigMemory& memory,
                                               const DriverRingOptions& options) {
  if (options.packed) return std::make_unique<PackedDriverRing>(memory, options);
  return std::make_unique<SplitDriverRing>(memory, options);
}

void write_table(RigMemory& memory, GuestAddress table, std::span<const DriverBuffer> buffers,
                 bool packed) {
  for (size_t i = 0; i < buffers.size(); ++i) {
    RingDescriptor entry{.address = buffers[i].address.value, .length = buffers[i].length};
    const uint16_t write = buffers[i].writable ? VRING_DESC_F_WRITE : 0;
    if (packed) {
      entry.fourth = write;
    } else {
      const bool more = i + 1 < buffers.size();
      entry.third = write | (more ? VRING_DESC_F_NEXT : 0);
      entry.fourth = static_cast<uint16_t>(more ? i + 1 : 0);
    }
    CHECK(memory.guest().write(table + i * sizeof(entry), entry));
  }
}

}  // namespace crosvm
