#include "arch/x86_64/boot_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arch/x86_64/test_images.h"

namespace crosvm::x86_64 {
namespace {

using test::Machine;

/// Follows the tables from CR3 as the processor would.
uint64_t translate(const Machine& machine, uint64_t cr3, uint64_t address) {
  auto entry = [&](uint64_t table, uint64_t index) {
    const uint64_t value =
        *machine.memory.read<uint64_t>(GuestAddress{(table & ~0xFFFull) + index * 8});
    EXPECT_EQ(value & 3, 3u) << "present and writable, at " << table;
    return value;
  };
  const uint64_t pdpt = entry(cr3, address >> 39 & 511);
  const uint64_t directory = entry(pdpt, address >> 30 & 511);
  const uint64_t page = entry(directory, address >> 21 & 511);
  EXPECT_TRUE(page & 0x80) << "a 2 MiB page";
  return (page & ~0x1FFFFFull) | (address & 0x1FFFFF);
}

/// The segment that a selector loads from the GDT in memory.
Segment from_gdt(const Machine& machine, const SystemRegisters& state, uint16_t selector) {
  EXPECT_LE(selector + 7, state.gdt.limit);
  const uint64_t d = *machine.memory.read<uint64_t>(GuestAddress{state.gdt.base + selector});
  const auto limit = static_cast<uint32_t>((d & 0xFFFF) | (d >> 32 & 0xF0000));
  const bool pages = (d >> 55 & 1) != 0;
  return {.base = (d >> 16 & 0xFFFFFF) | (d >> 32 & 0xFF000000),
          .limit = pages ? (limit << 12 | 0xFFF) : limit,
          .selector = selector,
          .type = static_cast<uint8_t>(d >> 40 & 0xF),
          .present = (d >> 47 & 1) != 0,
          .dpl = static_cast<uint8_t>(d >> 45 & 3),
          .db = (d >> 54 & 1) != 0,
          .s = (d >> 44 & 1) != 0,
          .l = (d >> 53 & 1) != 0,
          .g = pages,
          .avl = (d >> 52 & 1) != 0,
          .unusable = false};
}

void expect_same(const Segment& a, const Segment& b) {
  EXPECT_EQ(a.base, b.base);
  EXPECT_EQ(a.limit, b.limit);
  EXPECT_EQ(a.type, b.type);
  EXPECT_EQ(a.present, b.present);
  EXPECT_EQ(a.dpl, b.dpl);
  EXPECT_EQ(a.db, b.db);
  EXPECT_EQ(a.s, b.s);
  EXPECT_EQ(a.l, b.l);
  EXPECT_EQ(a.g, b.g);
}

class BootStateModes : public testing::TestWithParam<EntryMode> {};

TEST_P(BootStateModes, LoadedSegmentsAreThoseOfTheGdt) {
  Machine machine(64);
  ASSERT_TRUE(write_boot_tables(machine.memory, GetParam()).has_value());
  const SystemRegisters state = boot_system_registers(GetParam(), {});
  for (const Segment& segment :
       {state.cs, state.ds, state.es, state.fs, state.gs, state.ss, state.tr}) {
    expect_same(segment, from_gdt(machine, state, segment.selector));
  }
  EXPECT_EQ(state.cs.selector, 0x10);
  EXPECT_EQ(state.ds.selector, 0x18);
  EXPECT_EQ(state.tr.selector, 0x20);
  EXPECT_EQ(state.gdt.base, 0x1500u);
  EXPECT_EQ(state.idt.base, 0x1528u);
  EXPECT_EQ(state.idt.limit, 7);
}

INSTANTIATE_TEST_SUITE_P(Modes, BootStateModes,
                         testing::Values(EntryMode::kLong64, EntryMode::kFlat32, EntryMode::kPvh));

TEST(BootState64, FirstFourGigabytesAreMappedOntoThemselves) {
  Machine machine(64);
  ASSERT_TRUE(write_boot_tables(machine.memory, EntryMode::kLong64).has_value());
  const SystemRegisters state = boot_system_registers(EntryMode::kLong64, {});
  EXPECT_EQ(state.cr3, 0x9000u);
  for (uint64_t address :
       {0x0ull, 0x7000ull, 0x1000000ull, 0x40000000ull, 0xFEE00000ull, 0xFFFFFFFFull}) {
    EXPECT_EQ(translate(machine, state.cr3, address), address);
  }
}

TEST(BootState64, LongModeIsOn) {
  const SystemRegisters state = boot_system_registers(EntryMode::kLong64, {});
  EXPECT_EQ(state.cr0, 0x80000011u);
  EXPECT_EQ(state.cr4, 0x20u);
  EXPECT_EQ(state.efer, 0x500u);
  EXPECT_TRUE(state.cs.l);
  EXPECT_FALSE(state.cs.db);
  EXPECT_EQ(state.gdt.limit, 47);
}

TEST(BootState32, PagingIsOffAndSegmentsSpanFourGigabytes) {
  for (EntryMode mode : {EntryMode::kFlat32, EntryMode::kPvh}) {
    const SystemRegisters state = boot_system_registers(mode, {});
    EXPECT_EQ(state.cr0, 0x11u);
    EXPECT_EQ(state.cr4, 0u);
    EXPECT_EQ(state.efer, 0u);
    EXPECT_EQ(state.cs.limit, 0xFFFFFFFF);
    EXPECT_TRUE(state.cs.db);
    EXPECT_EQ(state.ds.limit, 0xFFFFFFFF);
    EXPECT_EQ(state.gdt.limit, 39);
  }
}

TEST(BootState32, PvhTaskSegmentHasTheLimitOfTheAbi) {
  const Segment tr = boot_system_registers(EntryMode::kPvh, {}).tr;
  EXPECT_EQ(tr.limit, 0x67u);
  EXPECT_EQ(tr.type, 0xB);
}

TEST(BootState, KeepsWhatItDoesNotSet) {
  SystemRegisters reset;
  reset.ldt.limit = 0xFFFF;
  reset.cr8 = 3;
  const SystemRegisters state = boot_system_registers(EntryMode::kLong64, reset);
  EXPECT_EQ(state.ldt.limit, 0xFFFFu);
  EXPECT_EQ(state.cr8, 3u);
}

/// What the variable MTRRs say about an address; nothing when none matches.
bool covered(const std::vector<Msr>& msrs, uint64_t address) {
  for (size_t i = 0; i + 1 < msrs.size(); i += 2) {
    const uint64_t base = msrs[i].value & ~0xFFFull;
    const uint64_t mask = msrs[i + 1].value & ~0xFFFull;
    EXPECT_TRUE(msrs[i + 1].value & 0x800) << "valid";
    EXPECT_EQ(msrs[i].value & 0xFF, 0u) << "uncached";
    if ((address & mask) == (base & mask)) return true;
  }
  return false;
}

TEST(Mtrr, DefaultWindowTakesTwoPairs) {
  const auto msrs = mtrr_msrs({GuestAddress{0xD0000000}, 0x30000000}, 40);
  ASSERT_EQ(msrs.size(), 5u);
  EXPECT_EQ(msrs[0].index, 0x200u);
  EXPECT_EQ(msrs[0].value, 0xD0000000u);
  EXPECT_EQ(msrs[1].value, 0xFFF0000800u);
  EXPECT_EQ(msrs[2].value, 0xE0000000u);
  EXPECT_EQ(msrs[3].value, 0xFFE0000800u);
  EXPECT_EQ(msrs[4].index, 0x2FFu);
  EXPECT_EQ(msrs[4].value, 0x806u);
}

TEST(Mtrr, CoversExactlyTheWindow) {
  for (uint64_t start : {0xD0000000ull, 0xC8100000ull, 0x80000000ull, 0xFFF00000ull, 0x100000ull}) {
    const auto msrs = mtrr_msrs({GuestAddress{start}, kFourGiB.value - start}, 46);
    EXPECT_TRUE(covered(msrs, start));
    EXPECT_TRUE(covered(msrs, (start + kFourGiB.value) / 2));
    EXPECT_TRUE(covered(msrs, 0xFFFFFFFF));
    EXPECT_FALSE(covered(msrs, start - 1));
    EXPECT_FALSE(covered(msrs, kFourGiB.value));
    EXPECT_FALSE(covered(msrs, kFourGiB.value + start));
  }
}

TEST(Lints, DeliverExternalInterruptsAndNmi) {
  LapicState lapic;
  lapic.words[0x350 / 4] = 0x10000;
  lapic.words[0x360 / 4] = 0x10700;
  set_boot_lints(lapic);
  EXPECT_EQ(lapic.words[0x350 / 4], 0x10700u);
  EXPECT_EQ(lapic.words[0x360 / 4], 0x10400u);
}

TEST(BootMsrs, OnlyLongModeClearsTheSystemCallRegisters) {
  EXPECT_EQ(boot_msrs(EntryMode::kLong64).size(), 10u);
  const auto flat = boot_msrs(EntryMode::kFlat32);
  ASSERT_EQ(flat.size(), 2u);
  EXPECT_EQ(flat[0].index, 0x10u);
  EXPECT_EQ(flat[1].index, 0x1A0u);
  EXPECT_EQ(flat[1].value, 1u);
}

}  // namespace
}  // namespace crosvm::x86_64
