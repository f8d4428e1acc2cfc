#include "arch/x86_64/pvh.h"

#include <elf.h>

#include <cstring>

#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

constexpr uint32_t kPhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY
constexpr uint32_t kStartMagic = 0x336EC578;
constexpr uint32_t kStartVersion = 1;

// hvm_start_info, hvm_modlist_entry and hvm_memmap_table_entry, as the ABI lays them out.
struct StartInfo {
  uint32_t magic = kStartMagic;
  uint32_t version = kStartVersion;
  uint32_t flags = 0;
  uint32_t nr_modules = 0;
  uint64_t modlist_paddr = 0;
  uint64_t cmdline_paddr = 0;
  uint64_t rsdp_paddr = 0;
  uint64_t memmap_paddr = 0;
  uint32_t memmap_entries = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct Module {
  uint64_t paddr = 0;
  uint64_t size = 0;
  uint64_t cmdline_paddr = 0;
  uint64_t reserved = 0;
};

struct MemoryMapEntry {
  uint64_t addr = 0;
  uint64_t size = 0;
  uint32_t type = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(MemoryMapEntry) == 24);

/// The entry in a note's descriptor: 4 or 8 bytes.
Result<uint64_t> entry_of(std::span<const std::byte> descriptor) {
  if (descriptor.size() != 4 && descriptor.size() != 8) {
    return fail(Error::invalid(
        format_text("has a PVH entry note of {} bytes, not 4 or 8", descriptor.size())));
  }
  uint64_t entry = 0;
  std::memcpy(&entry, descriptor.data(), descriptor.size());
  if (entry > UINT32_MAX) {
    return fail(Error::invalid(format_text("has its PVH entry {:#x} above 4 GiB", entry)));
  }
  return entry;
}

}  // namespace

Result<std::optional<uint64_t>> find_pvh_note(std::span<const std::byte> notes,
                                              uint64_t alignment) {
  const uint64_t align = alignment == 8 ? 8 : 4;
  const auto padded = [align](uint64_t size) { return (size + align - 1) / align * align; };
  while (notes.size() >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr note;
    std::memcpy(&note, notes.data(), sizeof(note));
    // Sums of two 32-bit values in 64 bits: no overflow.
    const uint64_t descriptor_at = padded(sizeof(note) + uint64_t{note.n_namesz});
    const uint64_t end = descriptor_at + note.n_descsz;
    if (end > notes.size()) return fail(Error::invalid("has a note that does not end"));
    if (note.n_type == kPhys32Entry && note.n_namesz == 4 &&
        std::memcmp(notes.data() + sizeof(note), "Xen", 4) == 0) {
      return TRY(entry_of(notes.subspan(descriptor_at, note.n_descsz)));
    }
    notes = notes.subspan(std::min<uint64_t>(padded(end), notes.size()));
  }
  return std::optional<uint64_t>{};
}

Result<void> write_pvh_start_info(const GuestMemory& memory, const PvhStart& start) {
  if (start.e820.size() >= kE820Limit) {
    return fail(Error::invalid(format_text("the memory map has {} entries, {} are the most",
                                           start.e820.size(), kE820Limit - 1)));
  }
  StartInfo info;
  info.cmdline_paddr = kCommandLine.value;
  info.rsdp_paddr = kRsdp.value;
  if (start.initrd) {
    info.nr_modules = 1;
    info.modlist_paddr = kPvhModules.value;
    TRY(memory.write(kPvhModules,
                     Module{.paddr = start.initrd->start.value, .size = start.initrd->size}));
  }
  info.memmap_paddr = kPvhMemoryMap.value;
  GuestAddress to = kPvhMemoryMap;
  for (const E820Entry& entry : start.e820) {
    TRY(memory.write(to, MemoryMapEntry{.addr = entry.range.start.value,
                                        .size = entry.range.size,
                                        .type = static_cast<uint32_t>(entry.type)}));
    to = to + sizeof(MemoryMapEntry);
    ++info.memmap_entries;
  }
  return memory.write(kPvhStartInfo, info);
}

}  // namespace crosvm::x86_64
