#include "arch/x86_64/memory_map.h"

#include <algorithm>

#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

constexpr uint64_t kVcfgAlignment = 2 * kMiB;
constexpr uint64_t kVcfgSize = 2 * kEcamSize;  // 8 KiB a function, twice that of ECAM

AddressRange between(GuestAddress start, GuestAddress end) {
  return {start, end.value - start.value};
}

/// End of the physical addresses a guest may use on this host.
uint64_t address_limit(uint32_t host_physical_bits) {
  return uint64_t{1} << std::min(host_physical_bits, kMaxPhysicalBits);
}

/// The most RAM that leaves room for the windows above it.
uint64_t most_ram(uint64_t limit) {
  const uint64_t above = kFourGiB.value + kVcfgSize;
  return limit > above ? kLowMmio.value + (limit - above - 1) / kVcfgAlignment * kVcfgAlignment
                       : kLowMmio.value;
}

Result<void> check_size(const MemoryRequest& request) {
  const uint64_t bytes = request.ram_bytes;
  if (bytes < kHighMemory.value) {
    return fail(Error::invalid(
        format_text("guest memory of {} bytes is too small for any kernel; give --mem 64 or more, "
                    "in MiB",
                    bytes)));
  }
  if (bytes % kPageSize != 0) {
    return fail(Error::invalid(
        format_text("guest memory of {} bytes is not a multiple of the page size; give --mem a "
                    "number of MiB",
                    bytes)));
  }
  const uint64_t most = most_ram(address_limit(request.host_physical_bits));
  if (bytes > most) {
    return fail(Error::invalid(format_text(
        "guest memory of {} MiB does not fit into the {} physical address bits of this host; "
        "give --mem {} or less",
        bytes / kMiB, request.host_physical_bits, most / kMiB)));
  }
  return {};
}

std::vector<E820Entry> e820_of(const MemoryLayout& layout) {
  std::vector<E820Entry> table;
  auto add = [&table](AddressRange range, E820Type type) {
    if (range.size != 0) table.push_back({range, type});
  };
  const RamRange& low = layout.ram.front();
  add(between(GuestAddress{0}, kReservedHole), E820Type::kRam);
  add(between(kReservedHole, kHighMemory), E820Type::kReserved);
  add(between(kHighMemory, low.base + low.size), E820Type::kRam);
  for (size_t i = 1; i < layout.ram.size(); ++i) {
    add({layout.ram[i].base, layout.ram[i].size}, E820Type::kRam);
  }
  add(layout.ecam, E820Type::kReserved);
  add(layout.vcfg, E820Type::kReserved);
  add(between(kIdentityMap, kTssEnd), E820Type::kReserved);
  return table;
}

}  // namespace

Result<MemoryLayout> plan_memory(const MemoryRequest& request) {
  TRY(check_size(request));
  MemoryLayout layout;
  const uint64_t low = std::min(request.ram_bytes, kLowMmio.value);
  layout.ram.push_back({GuestAddress{0}, low});
  GuestAddress ram_end = kFourGiB;
  if (request.ram_bytes > low) {
    layout.ram.push_back({kFourGiB, request.ram_bytes - low});
    ram_end = kFourGiB + (request.ram_bytes - low);
  }
  layout.low_mmio = between(kLowMmio, kLowMmioEnd);
  layout.ecam = {kEcam, kEcamSize};
  const uint64_t vcfg = (ram_end.value + kVcfgAlignment - 1) / kVcfgAlignment * kVcfgAlignment;
  layout.vcfg = {GuestAddress{vcfg}, kVcfgSize};
  // A host with 32 address bits has no high window; its guests keep to the low one.
  const uint64_t limit = std::max(address_limit(request.host_physical_bits), vcfg + kVcfgSize);
  layout.high_mmio = between(layout.vcfg.end(), GuestAddress{limit});
  layout.e820 = e820_of(layout);
  CHECK(layout.e820.size() < kE820Limit);
  return layout;
}

}  // namespace crosvm::x86_64
