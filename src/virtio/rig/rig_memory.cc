#include "virtio/rig/rig_memory.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "base/log.h"

namespace crosvm {
namespace {

GuestMemory make_memory(uint64_t high_bytes) {
  const std::array<RamRange, 3> ranges{{{GuestAddress{0}, RigMemory::kRegionBytes},
                                        {RigMemory::kBorder, RigMemory::kRegionBytes},
                                        {RigMemory::kHigh, high_bytes}}};
  auto memory = GuestMemory::create(ranges, {});
  if (!memory) log::error("the rig's memory: {}", memory.error().what());
  CHECK(memory.has_value());
  return std::move(*memory);
}

uint64_t round_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

RigMemory::RigMemory(uint64_t high_bytes) : memory_(make_memory(high_bytes)) {
  for (size_t i = 0; i < free_.size(); ++i) {
    const RamRegion& region = memory_.regions()[i];
    free_[i].emplace(region.base.value, region.size);
  }
  free_[0] = {{0, kRegionBytes - kBorderRoom}};
  free_[1] = {{kRegionBytes + kBorderRoom, kRegionBytes - kBorderRoom}};
}

bool RigMemory::allocate_in(Ranges& free, uint64_t bytes, uint64_t alignment,
                            GuestAddress& address) {
  for (auto [start, size] : free) {
    const uint64_t aligned = round_up(start, alignment);
    const uint64_t end = start + size;
    if (aligned > end || end - aligned < bytes) continue;
    free.erase(start);
    if (aligned > start) free.emplace(start, aligned - start);
    if (end - aligned > bytes) free.emplace(aligned + bytes, end - aligned - bytes);
    address = GuestAddress{aligned};
    return true;
  }
  return false;
}

GuestAddress RigMemory::allocate(uint64_t bytes, uint64_t alignment) {
  bytes = std::max<uint64_t>(bytes, 1);
  GuestAddress address;
  for (size_t i = 0; i < free_.size(); ++i) {
    const size_t region = turn_++ % free_.size();
    if (!allocate_in(free_[region], bytes, alignment, address)) continue;
    taken_.emplace(address.value, std::pair(region, bytes));
    return address;
  }
  log::error("the rig has no {} bytes of guest memory left", bytes);
  check_failed(__FILE__, __LINE__, "room in the rig's memory");
}

void RigMemory::free(GuestAddress address) {
  const auto found = taken_.find(address.value);
  CHECK(found != taken_.end());
  auto [region, bytes] = found->second;
  taken_.erase(found);
  Ranges& free = free_[region];
  auto here = free.emplace(address.value, bytes).first;
  if (auto next = std::next(here);
      next != free.end() && here->first + here->second == next->first) {
    here->second += next->second;
    free.erase(next);
  }
  if (here == free.begin()) return;
  if (auto before = std::prev(here); before->first + before->second == here->first) {
    before->second += here->second;
    free.erase(here);
  }
}

void RigMemory::write(GuestAddress to, std::span<const std::byte> bytes) const {
  CHECK(memory_.write_bytes(to, bytes));
}

void RigMemory::read(GuestAddress from, std::span<std::byte> bytes) const {
  CHECK(memory_.read_bytes(from, bytes));
}

void RigMemory::fill(GuestAddress to, uint64_t bytes, std::byte value) const {
  write(to, std::vector<std::byte>(bytes, value));
}

}  // namespace crosvm
