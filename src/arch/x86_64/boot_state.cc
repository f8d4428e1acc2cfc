#include "arch/x86_64/boot_state.h"

#include <algorithm>
#include <array>
#include <bit>

namespace crosvm::x86_64 {
namespace {

// Access byte in bits 7:0, G/DB/L/AVL in bits 15:12 of the descriptor's attribute word.
constexpr uint16_t kCode64 = 0xA09B;
constexpr uint16_t kCode32 = 0xC09B;
constexpr uint16_t kData = 0xC093;
constexpr uint16_t kTss = 0x808B;
constexpr uint16_t kPvhTss = 0x008B;

constexpr uint32_t kFullLimit = 0xFFFFF;
constexpr uint32_t kPvhTssLimit = 0x67;  // HVM direct boot ABI

constexpr size_t kCodeSlot = 2;
constexpr size_t kDataSlot = 3;
constexpr size_t kTssSlot = 4;
constexpr uint16_t kSlotSize = 8;

constexpr uint64_t kCr0Pe = 1;
constexpr uint64_t kCr0Et = 1 << 4;  // reads as 1 on every processor
constexpr uint64_t kCr0Pg = 1u << 31;
constexpr uint64_t kCr4Pae = 1 << 5;
constexpr uint64_t kEferLme = 1 << 8;
constexpr uint64_t kEferLma = 1 << 10;

/// A segment descriptor with base 0.
struct Descriptor {
  uint16_t attributes = 0;
  uint32_t limit = 0;  // as encoded: in pages when G is set

  constexpr uint64_t encoded() const {
    return (uint64_t{attributes} << 40 & 0x00F0FF0000000000) | (uint64_t{limit & 0xF0000} << 32) |
           (limit & 0xFFFF);
  }
  Segment loaded(size_t slot) const {
    const bool pages = (attributes & 0x8000) != 0;
    return {.base = 0,
            .limit = pages ? (limit << 12 | 0xFFF) : limit,
            .selector = static_cast<uint16_t>(slot * kSlotSize),
            .type = static_cast<uint8_t>(attributes & 0xF),
            .present = (attributes & 0x80) != 0,
            .dpl = static_cast<uint8_t>(attributes >> 5 & 3),
            .db = (attributes & 0x4000) != 0,
            .s = (attributes & 0x10) != 0,
            .l = (attributes & 0x2000) != 0,
            .g = pages,
            .avl = (attributes & 0x1000) != 0,
            .unusable = false};
  }
};

/// Slots 2 to 4. Slot 5, the upper half of a 64-bit TSS, is zero and so is the IDT over it.
struct Gdt {
  Descriptor code, data, tss;
  uint16_t limit;
};

constexpr Gdt gdt_for(EntryMode mode) {
  const Descriptor data{kData, kFullLimit};
  switch (mode) {
    case EntryMode::kLong64:
      return {{kCode64, kFullLimit}, data, {kTss, kFullLimit}, 6 * kSlotSize - 1};
    case EntryMode::kFlat32:
      return {{kCode32, kFullLimit}, data, {kTss, kFullLimit}, 5 * kSlotSize - 1};
    case EntryMode::kPvh:
      break;
  }
  return {{kCode32, kFullLimit}, data, {kPvhTss, kPvhTssLimit}, 5 * kSlotSize - 1};
}

Result<void> write_page_tables(const GuestMemory& memory) {
  constexpr uint64_t kPresentWritable = 0x3;
  constexpr uint64_t kLargePage = 0x80;
  constexpr size_t kDirectories = 4;
  constexpr size_t kEntries = 512;
  TRY(memory.write(kPml4, kPdpt.value | kPresentWritable));
  for (size_t i = 0; i < kDirectories; ++i) {
    TRY(memory.write(kPdpt + i * sizeof(uint64_t),
                     (kPageDirectories.value + i * kPageSize) | kPresentWritable));
  }
  std::array<uint64_t, kDirectories * kEntries> directories;
  for (size_t i = 0; i < directories.size(); ++i) {
    directories[i] = i * 2 * kMiB | kPresentWritable | kLargePage;
  }
  return memory.write_bytes(kPageDirectories, std::as_bytes(std::span(directories)));
}

}  // namespace

Result<void> write_boot_tables(const GuestMemory& memory, EntryMode mode) {
  const Gdt gdt = gdt_for(mode);
  TRY(memory.write(kGdt, std::array<uint64_t, 5>{0, 0, gdt.code.encoded(), gdt.data.encoded(),
                                                 gdt.tss.encoded()}));
  TRY(memory.write(kIdt, uint64_t{0}));
  if (mode == EntryMode::kLong64) TRY(write_page_tables(memory));
  return {};
}

Registers boot_registers(EntryMode mode, uint64_t entry) {
  Registers registers;
  registers.rip = entry;
  if (mode == EntryMode::kPvh) {
    registers.rbx = kPvhStartInfo.value;
  } else {
    registers.rsp = kInitialStack.value;
    registers.rsi = kZeroPage.value;
  }
  return registers;
}

SystemRegisters boot_system_registers(EntryMode mode, const SystemRegisters& reset) {
  const Gdt gdt = gdt_for(mode);
  SystemRegisters state = reset;
  state.cs = gdt.code.loaded(kCodeSlot);
  state.ds = state.es = state.fs = state.gs = state.ss = gdt.data.loaded(kDataSlot);
  state.tr = gdt.tss.loaded(kTssSlot);
  state.gdt = {.base = kGdt.value, .limit = gdt.limit};
  state.idt = {.base = kIdt.value, .limit = sizeof(uint64_t) - 1};
  state.cr0 = kCr0Pe | kCr0Et;
  state.cr3 = 0;
  state.cr4 = 0;
  state.efer = 0;
  if (mode == EntryMode::kLong64) {
    state.cr0 |= kCr0Pg;
    state.cr3 = kPml4.value;
    state.cr4 = kCr4Pae;
    state.efer = kEferLme | kEferLma;
  }
  return state;
}

std::vector<Msr> boot_msrs(EntryMode mode) {
  constexpr uint64_t kFastStrings = 1;
  std::vector<Msr> msrs;
  if (mode == EntryMode::kLong64) {
    constexpr uint32_t kZeroed[] = {
        0x174,       // IA32_SYSENTER_CS
        0x175,       // IA32_SYSENTER_ESP
        0x176,       // IA32_SYSENTER_EIP
        0xC0000081,  // STAR
        0xC0000083,  // CSTAR
        0xC0000102,  // KERNEL_GS_BASE
        0xC0000084,  // SYSCALL_MASK
        0xC0000082,  // LSTAR
    };
    for (uint32_t index : kZeroed) msrs.push_back({index, 0});
  }
  msrs.push_back({0x10, 0});              // IA32_TSC
  msrs.push_back({0x1A0, kFastStrings});  // IA32_MISC_ENABLE
  return msrs;
}

std::vector<Msr> mtrr_msrs(AddressRange uncached, uint32_t physical_bits) {
  constexpr uint32_t kFirstBase = 0x200;
  constexpr uint32_t kDefaultType = 0x2FF;
  constexpr uint64_t kUncachedType = 0;
  constexpr uint64_t kValid = 1 << 11;
  constexpr uint64_t kEnabledWriteBack = 0x806;
  const uint64_t addresses = (uint64_t{1} << physical_bits) - 1;  // bits above are reserved

  std::vector<Msr> msrs;
  uint32_t index = kFirstBase;
  uint64_t start = uncached.start.value;
  uint64_t left = uncached.size;
  while (left != 0) {
    const uint64_t aligned = start == 0 ? UINT64_MAX : start & -start;
    const uint64_t size = std::min(aligned, std::bit_floor(left));
    msrs.push_back({index++, start | kUncachedType});
    msrs.push_back({index++, (~(size - 1) & addresses) | kValid});
    start += size;
    left -= size;
  }
  msrs.push_back({kDefaultType, kEnabledWriteBack});
  return msrs;
}

void set_boot_lints(LapicState& lapic) {
  constexpr size_t kLint0 = 0x350 / sizeof(uint32_t);
  constexpr size_t kLint1 = 0x360 / sizeof(uint32_t);
  constexpr uint32_t kModeMask = 7 << 8;
  constexpr uint32_t kExtInt = 7 << 8;
  constexpr uint32_t kNmi = 4 << 8;
  lapic.words[kLint0] = (lapic.words[kLint0] & ~kModeMask) | kExtInt;
  lapic.words[kLint1] = (lapic.words[kLint1] & ~kModeMask) | kNmi;
}

}  // namespace crosvm::x86_64
