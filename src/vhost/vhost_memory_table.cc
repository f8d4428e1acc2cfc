#include "vhost/vhost_memory_table.h"

#include <algorithm>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

Error about(const VhostUserMemoryRegion& region, const char* what) {
  return Error::invalid(format_text("memory region at user address {:#x} of {:#x} bytes: {}",
                                    region.user_address, region.size, what));
}

}  // namespace

Result<GuestMemory> VhostMemoryTable::map(std::span<const Entry> entries) {
  std::vector<const VhostUserMemoryRegion*> by_user_address;
  std::vector<FileRange> ranges;
  for (const Entry& entry : entries) {
    const VhostUserMemoryRegion& region = entry.region;
    // A ring's address in the front-end has the alignment that it has in the guest.
    if ((region.user_address ^ region.guest_address) % kVhostUserLogPage != 0) {
      return fail(about(region, "not whole pages"));
    }
    if (region.size > UINT64_MAX - region.user_address) return fail(about(region, "wraps"));
    by_user_address.push_back(&region);
    ranges.push_back({.base = {region.guest_address},
                      .size = region.size,
                      .offset = region.mmap_offset,
                      .file = entry.file});
  }
  std::ranges::sort(by_user_address, {}, &VhostUserMemoryRegion::user_address);
  uint64_t free_from = 0;
  for (const VhostUserMemoryRegion* region : by_user_address) {
    if (region->user_address < free_from) return fail(about(*region, "overlaps another"));
    free_from = region->user_address + region->size;
  }
  return GuestMemory::map(ranges);
}

Result<GuestMemory> VhostMemoryTable::set(std::span<const VhostUserMemoryRegion> regions,
                                          std::vector<Fd> files) {
  if (regions.size() != files.size()) {
    return fail(Error::invalid(format_text("a memory table of {} regions came with {} descriptors",
                                           regions.size(), files.size())));
  }
  std::vector<Entry> entries;
  for (size_t i = 0; i < regions.size(); ++i) entries.push_back({regions[i], std::move(files[i])});
  GuestMemory memory = TRY(map(entries));
  entries_ = std::move(entries);
  return memory;
}

Result<GuestMemory> VhostMemoryTable::add(const VhostUserMemoryRegion& region, Fd file) {
  if (entries_.size() >= kVhostUserMaxMemSlots) {
    return fail(about(region, "there are as many regions as can be"));
  }
  entries_.push_back({region, std::move(file)});
  auto memory = map(entries_);
  if (!memory) entries_.pop_back();
  return memory;
}

Result<GuestMemory> VhostMemoryTable::remove(const VhostUserMemoryRegion& region) {
  const auto entry = std::ranges::find_if(entries_, [&](const Entry& each) {
    return each.region.guest_address == region.guest_address && each.region.size == region.size &&
           each.region.user_address == region.user_address;
  });
  if (entry == entries_.end()) return fail(about(region, "there is none like it"));
  Entry removed = std::move(*entry);
  entries_.erase(entry);
  auto memory = map(entries_);
  if (!memory) entries_.push_back(std::move(removed));
  return memory;
}

std::optional<GuestAddress> VhostMemoryTable::guest_address(uint64_t user_address) const {
  for (const Entry& entry : entries_) {
    const VhostUserMemoryRegion& region = entry.region;
    if (user_address < region.user_address) continue;
    const uint64_t offset = user_address - region.user_address;
    if (offset < region.size) return GuestAddress{region.guest_address + offset};
  }
  return std::nullopt;
}

}  // namespace crosvm
