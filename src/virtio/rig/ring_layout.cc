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

GuestSlice allocate(RigMemory& memory, uint64_t bytes, GuestAddress& address) {
  address = memory.allocate(bytes);
  auto slice = memory.guest().slice(address, bytes);
  CHECK(slice.has_value());
  return *slice;
}

}  // namespace

RingMemory::RingMemory(RigMemory& memory, bool packed, uint16_t size)
    : size_(size),
      addresses_{},
      descriptors_(allocate(memory, part_bytes(packed, size)[0], addresses_.descriptor_area)),
      driver_(allocate(memory, part_bytes(packed, size)[1], addresses_.driver_area)),
      device_(allocate(memory, part_bytes(packed, size)[2], addresses_.device_area)) {
  clear();
}

void RingMemory::clear() const {
  // Field by field: a test's thread may be writing to the ring.
  for (size_t at = 0; at < descriptors_.size(); at += 8) {
    descriptors_.store_relaxed<uint64_t>(at, 0);
  }
  for (const GuestSlice& part : {driver_, device_}) {
    for (size_t at = 0; at < part.size(); at += 2) part.store_relaxed<uint16_t>(at, 0);
  }
}

}  // namespace crosvm
