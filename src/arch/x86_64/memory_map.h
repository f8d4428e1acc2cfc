#pragma once

#include <cstdint>
#include <vector>

#include "arch/x86_64/layout.h"
#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm::x86_64 {

/// A run of guest physical addresses, in bytes.
struct AddressRange {
  GuestAddress start;
  uint64_t size = 0;

  constexpr GuestAddress end() const { return start + size; }
  constexpr bool contains(uint64_t address) const {
    return address >= start.value && address - start.value < size;
  }
  friend constexpr bool operator==(const AddressRange&, const AddressRange&) = default;
};

/// What the firmware of a PC would say about a run of addresses: ACPI 6.5 table 15.4.
enum class E820Type : uint32_t { kRam = 1, kReserved = 2 };

struct E820Entry {
  AddressRange range;
  E820Type type = E820Type::kRam;

  friend constexpr bool operator==(const E820Entry&, const E820Entry&) = default;
};

/// The e820 table must stay below this many entries: the zero page holds no more.
inline constexpr size_t kE820Limit = 128;

struct MemoryRequest {
  uint64_t ram_bytes = kDefaultRamBytes;  ///< counted from 0, the hole below 1 MiB included
  uint32_t host_physical_bits = 36;       ///< CPUID 0x80000008 EAX[7:0]
};

/// Where RAM and the windows for devices lie (platform.md 1.1).
struct MemoryLayout {
  std::vector<RamRange> ram;  ///< for GuestMemory::create
  AddressRange low_mmio;      ///< below 4 GiB; `ecam` is its end and must be kept out of BARs
  AddressRange ecam;
  AddressRange vcfg;       ///< PCI virtual configuration, after RAM
  AddressRange high_mmio;  ///< from the end of `vcfg` to the end of the physical addresses
  std::vector<E820Entry> e820;
};

/// Lays out the guest's physical addresses. Errors: invalid_argument for RAM below 1 MiB, not a
/// multiple of the page size, or more than the host's physical addresses can hold.
Result<MemoryLayout> plan_memory(const MemoryRequest& request);

}  // namespace crosvm::x86_64
