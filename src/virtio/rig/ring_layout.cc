#include "virtio/rig/ring_layout.h"

#include "virtio/packed_ring.h"
#include "virtio/split_ring.h"

namespace crosvm {
namespace {

std::array<uint64_t, 3> part_bytes(bool packed, uint16_t size) {
  if (packed) {
    return {PackedRing::descriptor_bytes(size), PackedRing::kEventBytes, PackedRing::kEventBytes};
  }
  return {SplitRing::descriptor_bytes(size), SplitRing::driver_bytes(size),
          SplitRing::device_bytes(size)};
}

GuestSlice slice(const RigMemory& memory, GuestAddress address, uint64_t bytes) {
  auto slice = memory.guest().slice(address, bytes);
  CHECK(slice.has_value());
  return *slice;
}

}  // namespace

RingMemory::RingMemory(RigMemory& memory, bool packed, uint16_t size)
    : size_(size),
      addresses_{},
      memory_(&memory),
      bytes_(part_bytes(packed, size)),
      descriptors_(
          slice(memory, addresses_.descriptor_area = memory.allocate(bytes_[0]), bytes_[0])),
      driver_(slice(memory, addresses_.driver_area = memory.allocate(bytes_[1]), bytes_[1])),
      device_(slice(memory, addresses_.device_area = memory.allocate(bytes_[2]), bytes_[2])) {
  clear();
}

void RingMemory::clear() const {
  memory_->fill(addresses_.descriptor_area, bytes_[0], std::byte{0});
  memory_->fill(addresses_.driver_area, bytes_[1], std::byte{0});
  memory_->fill(addresses_.device_area, bytes_[2], std::byte{0});
}

}  // namespace crosvm
