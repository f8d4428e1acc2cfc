#include "arch/x86_64/bzimage.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "arch/x86_64/test_images.h"

namespace crosvm::x86_64 {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;

TEST(BzImage, ProtectedModeCodeLandsAtTwoMegabytes) {
  Machine machine(64);
  const Bytes file = bzimage({.setup_sectors = 39});
  auto image = load(machine, file);
  ASSERT_TRUE(image.has_value()) << image.error().what();
  EXPECT_EQ(image->mode, EntryMode::kLong64);
  EXPECT_EQ(image->entry, 0x200200u);
  EXPECT_EQ(machine.byte_at(0x200000), std::to_integer<uint8_t>(file[40 * 512]));
  EXPECT_EQ(machine.byte_at(0x200FFF), std::to_integer<uint8_t>(file.back()));
  EXPECT_EQ(machine.byte_at(0x201000), 0);
  EXPECT_EQ(+image->header.initrd_addr_max, 0x7FFFFFFFu);
}

TEST(BzImage, ThirtyTwoBitEntry) {
  Machine machine(64);
  auto image = load(machine, bzimage({.xloadflags = 0}));
  ASSERT_TRUE(image.has_value());
  EXPECT_EQ(image->mode, EntryMode::kFlat32);
  EXPECT_EQ(image->entry, 0x200000u);
}

TEST(BzImage, OldProtocolHasNo64BitEntry) {
  Machine machine(64);
  EXPECT_EQ(load(machine, bzimage({.version = 0x0206}))->mode, EntryMode::kFlat32);
}

TEST(BzImage, NoSetupSectorsMeansFour) {
  Machine machine(64);
  const Bytes file = bzimage({.setup_sectors = 0});
  ASSERT_TRUE(load(machine, file).has_value());
  EXPECT_EQ(machine.byte_at(0x200000), std::to_integer<uint8_t>(file[5 * 512]));
}

TEST(BzImage, TrailingBytesAreLoadedToo) {
  Machine machine(64);
  const Bytes file = bzimage({.trailing_bytes = 100});
  ASSERT_TRUE(load(machine, file).has_value());
  EXPECT_EQ(machine.byte_at(0x201000 + 99), std::to_integer<uint8_t>(file.back()));
}

TEST(BzImage, TheKernelNeedsRoomToUnpackItself) {
  const Bytes file = bzimage({.init_size = 0x400000});  // 16 MiB + 4 MiB
  Machine small(19);
  EXPECT_THAT(error_of(load(small, file)), AllOf(HasSubstr("needs 20 MiB"), HasSubstr("--mem 20")));
  Machine enough(20);
  auto image = load(enough, file);
  ASSERT_TRUE(image.has_value()) << image.error().what();
  EXPECT_EQ(image->memory.end().value, 20 * kMiB);
}

TEST(BzImage, ImpossibleUnpackAddressIsRefused) {
  Machine machine(64);
  for (uint64_t address : {UINT64_MAX, UINT64_MAX - 0x400000, uint64_t{1} << 33}) {
    EXPECT_THAT(error_of(load(machine, bzimage({.pref_address = address}))),
                HasSubstr("above 4 GiB"));
  }
  EXPECT_FALSE(
      load(machine, bzimage({.pref_address = 0xFFFFFFFF, .init_size = UINT32_MAX})).has_value());
}

TEST(BzImage, PvhIsRefusedWithAFix) {
  Machine machine(64);
  EXPECT_THAT(error_of(load(machine, bzimage(), KernelEntry::kPvh)),
              AllOf(HasSubstr("no PVH entry"), HasSubstr("vmlinux")));
}

TEST(BzImage, ZImageIsRefused) {
  Machine machine(64);
  EXPECT_THAT(error_of(load(machine, bzimage({.loadflags = 0}))), HasSubstr("zImage"));
}

TEST(BzImage, EveryTruncationIsRefusedByName) {
  Machine machine(64);
  const Bytes whole = bzimage({.code_bytes = 0x400});
  for (size_t length = 0; length < whole.size(); ++length) {
    auto image = load(machine, Bytes(whole.begin(), whole.begin() + static_cast<long>(length)));
    ASSERT_FALSE(image.has_value()) << length;
    EXPECT_THAT(image.error().what(), HasSubstr("k.img")) << length;
  }
}

TEST(KernelImage, ForeignFilesAreToldApart) {
  Machine machine(64);
  auto with = [](size_t at, std::string_view magic) {
    Bytes file(0x400);
    put(file, at, magic.data(), magic.size());
    return file;
  };
  using namespace std::string_view_literals;
  EXPECT_THAT(error_of(load(machine, with(0x38, "ARM\x64"sv))), HasSubstr("aarch64"));
  EXPECT_THAT(error_of(load(machine, with(0x38, "RSC\x05"sv))), HasSubstr("riscv"));
  EXPECT_THAT(error_of(load(machine, with(0, "\x1f\x8b"sv))),
              AllOf(HasSubstr("gzip"), HasSubstr("unpack")));
  EXPECT_THAT(error_of(load(machine, with(0, "\x28\xb5\x2f\xfd"sv))), HasSubstr("zstd"));
  EXPECT_THAT(error_of(load(machine, with(0, "MZ"sv))), HasSubstr("EFI"));
  EXPECT_THAT(error_of(load(machine, with(0, "#!/bin/sh"sv))),
              HasSubstr("neither an ELF file nor a bzImage"));
  EXPECT_THAT(error_of(load(machine, {})), HasSubstr("empty"));
}

TEST(KernelImage, ADirectoryIsNamedAsSuch) {
  Machine machine(64);
  const Fd fd = *open_path("/", O_RDONLY | O_DIRECTORY);
  EXPECT_THAT(error_of(load_kernel(machine.memory, {.fd = fd, .name = "/"}, KernelEntry::kAuto)),
              HasSubstr("is a directory"));
}

/// Whatever the bytes say, the answer is a kernel inside RAM or a sentence.
TEST(KernelImage, RandomDamageIsHarmless) {
  Machine machine(32);
  std::mt19937 random(1);
  const Bytes originals[] = {elf64({.notes = pvh_notes(0x1000020)}), elf32(),
                             bzimage({.code_bytes = 0x400})};
  for (int round = 0; round < 4000; ++round) {
    Bytes file = originals[round % 3];
    const size_t header = round % 3 == 2 ? 0x280 : 0x140;
    for (int flips = 1 + static_cast<int>(random() % 4); flips > 0; --flips) {
      file[random() % std::min(header, file.size())] ^= std::byte{1} << random() % 8;
    }
    const auto entry = static_cast<KernelEntry>(random() % 3);
    auto image = load(machine, file, entry);
    if (image) {
      ASSERT_TRUE(image->memory.contains(image->entry)) << round;
      ASSERT_LE(image->memory.end().value, 32 * kMiB) << round;
    } else {
      ASSERT_THAT(image.error().what(), HasSubstr("k.img")) << round;
    }
  }
}

}  // namespace
}  // namespace crosvm::x86_64
