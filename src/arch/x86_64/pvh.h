#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "arch/x86_64/memory_map.h"
#include "base/result.h"
#include "memory/guest_memory.h"

/// The x86 HVM direct boot ABI of Xen, which other hypervisors call PVH.
namespace crosvm::x86_64 {

/// Searches a PT_NOTE segment for XEN_ELFNOTE_PHYS32_ENTRY. `alignment` is the segment's. Yields
/// the entry's physical address, below 4 GiB. Errors: invalid_argument saying what is malformed.
Result<std::optional<uint64_t>> find_pvh_note(std::span<const std::byte> notes, uint64_t alignment);

/// What a PVH kernel is told.
struct PvhStart {
  std::optional<AddressRange> initrd;
  std::span<const E820Entry> e820;
};

/// Writes hvm_start_info version 1 at kPvhStartInfo; the command line is that at kCommandLine and
/// the RSDP that at kRsdp. Errors: invalid_argument for too many e820 entries, bad_address.
Result<void> write_pvh_start_info(const GuestMemory& memory, const PvhStart& start);

}  // namespace crosvm::x86_64
