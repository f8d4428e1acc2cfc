#include "arch/x86_64/elf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arch/x86_64/test_images.h"

namespace crosvm::x86_64 {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;

TEST(Elf, LoadsAllSegmentsAtTheirPhysicalAddresses) {
  Machine machine(64);
  auto image = load(machine, elf64({.entry = 0x1000010,
                                    .segments = {{.paddr = 0x1000000},
                                                 {.paddr = 0x2000000,
                                                  .data = Bytes(0x20, std::byte{0xCD}),
                                                  .memory_size = 0x5000}}}));
  ASSERT_TRUE(image.has_value()) << image.error().what();
  EXPECT_EQ(image->mode, EntryMode::kLong64);
  EXPECT_EQ(image->entry, 0x1000010u);
  EXPECT_EQ(image->memory, (AddressRange{GuestAddress{0x1000000}, 0x1005000}));
  EXPECT_EQ(machine.byte_at(0x10000FF), 0xAB);
  EXPECT_EQ(machine.byte_at(0x1000100), 0);
  EXPECT_EQ(machine.byte_at(0x200001F), 0xCD);
  EXPECT_EQ(+image->header.cmdline_size, 2047u);
}

TEST(Elf, ThirtyTwoBitKernelIsEnteredInFlatMode) {
  Machine machine(64);
  auto image = load(machine, elf32());
  ASSERT_TRUE(image.has_value()) << image.error().what();
  EXPECT_EQ(image->mode, EntryMode::kFlat32);
  EXPECT_EQ(image->entry, 0x1000010u);
}

TEST(Elf, AutoPrefersTheEntryInALoadedSegment) {
  Machine machine(64);
  auto image = load(machine, elf64({.notes = pvh_notes(0x1000020)}));
  ASSERT_TRUE(image.has_value());
  EXPECT_EQ(image->mode, EntryMode::kLong64);
}

TEST(Elf, AutoTakesPvhWhenTheEntryIsVirtual) {
  Machine machine(64);
  auto image = load(machine, elf64({.entry = 0xFFFFFFFF81000000, .notes = pvh_notes(0x1000020)}));
  ASSERT_TRUE(image.has_value()) << image.error().what();
  EXPECT_EQ(image->mode, EntryMode::kPvh);
  EXPECT_EQ(image->entry, 0x1000020u);
}

TEST(Elf, PvhOnDemand) {
  Machine machine(64);
  auto image = load(machine, elf64({.notes = pvh_notes(0x1000020)}), KernelEntry::kPvh);
  ASSERT_TRUE(image.has_value()) << image.error().what();
  EXPECT_EQ(image->mode, EntryMode::kPvh);
  EXPECT_EQ(image->entry, 0x1000020u);
  EXPECT_EQ(load(machine, elf32({.notes = pvh_notes(0x1000020)}), KernelEntry::kPvh)->mode,
            EntryMode::kPvh);
}

TEST(Elf, PvhOnDemandWithoutNoteNamesFileCauseAndFix) {
  Machine machine(64);
  EXPECT_THAT(error_of(load(machine, elf64(), KernelEntry::kPvh)),
              AllOf(HasSubstr("k.img"), HasSubstr("no PVH entry note"), HasSubstr("CONFIG_PVH")));
}

TEST(Elf, LinuxOnDemandDoesNotFallBackToPvh) {
  Machine machine(64);
  EXPECT_THAT(error_of(load(machine, elf64({.entry = 1, .notes = pvh_notes(0x1000020)}),
                            KernelEntry::kLinux)),
              HasSubstr("outside all loaded segments"));
}

TEST(Elf, EntryAtTheBoundariesOfASegment) {
  Machine machine(64);
  EXPECT_TRUE(load(machine, elf64({.entry = 0x1000000})).has_value());
  EXPECT_TRUE(load(machine, elf64({.entry = 0x1000FFF})).has_value());
  EXPECT_FALSE(load(machine, elf64({.entry = 0x1001000})).has_value());
  EXPECT_FALSE(load(machine, elf64({.entry = 0xFFFFFF})).has_value());
}

TEST(Elf, PvhEntryOutsideTheSegmentsIsRefused) {
  Machine machine(64);
  EXPECT_THAT(error_of(load(machine, elf64({.notes = pvh_notes(0x5000000)}), KernelEntry::kPvh)),
              HasSubstr("PVH entry 0x5000000 outside"));
}

TEST(Elf, OtherArchitecturesAreNamed) {
  Machine machine(64);
  EXPECT_THAT(error_of(load(machine, elf64({.machine = EM_AARCH64}))), HasSubstr("aarch64"));
  EXPECT_THAT(error_of(load(machine, elf64({.machine = EM_RISCV}))), HasSubstr("riscv"));
  EXPECT_THAT(error_of(load(machine, elf32({.machine = EM_ARM}))), HasSubstr("32-bit ARM"));
}

TEST(Elf, ObjectFilesAreRefused) {
  Machine machine(64);
  EXPECT_THAT(error_of(load(machine, elf64({.type = ET_REL}))), HasSubstr("not linked"));
}

TEST(Elf, SegmentBelowTwoMegabytesIsRefused) {
  Machine machine(64);
  EXPECT_THAT(
      error_of(load(machine, elf64({.entry = 0x1FF000, .segments = {{.paddr = 0x1FF000}}}))),
      HasSubstr("0x1ff000, below 0x200000"));
  EXPECT_TRUE(
      load(machine, elf64({.entry = 0x200000, .segments = {{.paddr = 0x200000}}})).has_value());
}

TEST(Elf, MemoryTooSmallSaysHowMuchIsNeeded) {
  Machine machine(16);
  EXPECT_THAT(error_of(load(machine, elf64())),
              AllOf(HasSubstr("needs 17 MiB"), HasSubstr("has 16 MiB"), HasSubstr("--mem 17")));
  Machine enough(17);
  EXPECT_TRUE(load(enough, elf64()).has_value());
}

TEST(Elf, SegmentThatWrapsOrIsHugeIsRefused) {
  Machine machine(64);
  for (uint64_t size : {UINT64_MAX, UINT64_MAX - 0xFFFFFF, uint64_t{1} << 40}) {
    EXPECT_THAT(error_of(load(machine, elf64({.segments = {{.memory_size = size}}}))),
                HasSubstr("no memory size provides"));
  }
}

TEST(Elf, SegmentWithMoreInTheFileThanInMemoryIsRefused) {
  Machine machine(64);
  for (uint64_t size : {0x0, 0x1, 0xFF}) {
    for (uint64_t paddr : {0x2000000, 0x7000}) {  // also where it may not go at all
      const ElfSpec spec = {.segments = {{}, {.paddr = paddr, .memory_size = size}}};
      EXPECT_THAT(error_of(load(machine, elf64(spec))), HasSubstr("has a segment at")) << size;
      EXPECT_EQ(machine.byte_at(paddr), 0) << size;
    }
  }
}

TEST(Elf, NothingIsWrittenWhenALaterSegmentIsBad) {
  Machine machine(64);
  EXPECT_FALSE(load(machine, elf64({.segments = {{}, {.paddr = 0x4000000}}})).has_value());
  EXPECT_EQ(machine.byte_at(0x1000000), 0);
}

TEST(Elf, EveryTruncationIsRefused) {
  Machine machine(64);
  const Bytes whole = elf64();
  for (size_t length = 0; length < whole.size(); ++length) {
    auto image = load(machine, Bytes(whole.begin(), whole.begin() + static_cast<long>(length)));
    ASSERT_FALSE(image.has_value()) << length;
    EXPECT_THAT(image.error().what(), HasSubstr("k.img")) << length;
  }
}

TEST(Elf, EveryTruncationOfANoteIsRefusedWithPvh) {
  Machine machine(64);
  const Bytes whole = elf64({.notes = pvh_notes(0x1000020)});
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(load(machine, Bytes(whole.begin(), whole.begin() + static_cast<long>(length)),
                      KernelEntry::kPvh)
                     .has_value())
        << length;
  }
}

TEST(PvhNote, FindsFourAndEightByteEntries) {
  EXPECT_EQ(**find_pvh_note(note("Xen", 18, bytes_of(uint32_t{0x1234})), 4), 0x1234u);
  EXPECT_EQ(**find_pvh_note(note("Xen", 18, bytes_of(uint64_t{0x1234})), 4), 0x1234u);
}

TEST(PvhNote, LooksAtOwnerAndType) {
  EXPECT_FALSE(find_pvh_note(note("GNU", 18, bytes_of(uint64_t{1})), 4)->has_value());
  EXPECT_FALSE(find_pvh_note(note("Xen", 17, bytes_of(uint64_t{1})), 4)->has_value());
  EXPECT_FALSE(find_pvh_note({}, 4)->has_value());
}

TEST(PvhNote, MalformedNotesAreErrors) {
  EXPECT_THAT(error_of(find_pvh_note(note("Xen", 18, Bytes(6)), 4)), HasSubstr("of 6 bytes"));
  EXPECT_THAT(error_of(find_pvh_note(note("Xen", 18, bytes_of(uint64_t{1} << 32)), 4)),
              HasSubstr("above 4 GiB"));
  for (Elf64_Word huge : {0xFFFFFFFFu, 0xFFFFFFFDu, 0x80000000u}) {
    EXPECT_FALSE(find_pvh_note(bytes_of(Elf64_Nhdr{huge, 0, 18}), 4).has_value());
    EXPECT_FALSE(find_pvh_note(bytes_of(Elf64_Nhdr{0, huge, 18}), 8).has_value());
    EXPECT_FALSE(find_pvh_note(bytes_of(Elf64_Nhdr{huge, huge, 18}), 4).has_value());
  }
}

}  // namespace
}  // namespace crosvm::x86_64
