#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "memory/guest_memory.h"
#include "vhost/vhost_user_protocol.h"

namespace crosvm {

/// What a front-end says of the guest's RAM: for each region its guest address, its address in the
/// front-end ("user address"), and the file it lies in ("Memory access"). Nothing of it is trusted.
///
/// Each change gives the whole RAM mapped anew. When it is an error the table stays as it was.
class VhostMemoryTable {
 public:
  /// SET_MEM_TABLE: these regions and no others, with one descriptor each. Errors: those of
  /// GuestMemory::map, invalid_argument for another number of descriptors and for user addresses
  /// that overlap or wrap.
  Result<GuestMemory> set(std::span<const VhostUserMemoryRegion> regions, std::vector<Fd> files);
  /// ADD_MEM_REG. Errors: as above, and when there are kVhostUserMaxMemSlots regions.
  Result<GuestMemory> add(const VhostUserMemoryRegion& region, Fd file);
  /// REM_MEM_REG: the region with these addresses and this size. Errors: no such region.
  Result<GuestMemory> remove(const VhostUserMemoryRegion& region);
  void clear() { entries_.clear(); }

  size_t regions() const { return entries_.size(); }
  /// The guest address of a user address, if that lies in a region.
  std::optional<GuestAddress> guest_address(uint64_t user_address) const;

 private:
  struct Entry {
    VhostUserMemoryRegion region;
    Fd file;
  };
  static Result<GuestMemory> map(std::span<const Entry> entries);

  std::vector<Entry> entries_;
};

}  // namespace crosvm
