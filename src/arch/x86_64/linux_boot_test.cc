#include "arch/x86_64/linux_boot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arch/x86_64/test_images.h"

namespace crosvm::x86_64 {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;

boot_params zero_page(const Machine& machine) {
  boot_params params;
  EXPECT_TRUE(machine.memory.read_bytes(kZeroPage, std::as_writable_bytes(std::span(&params, 1)))
                  .has_value());
  return params;
}

struct Boot {
  Bytes kernel = bzimage();
  std::optional<Bytes> initrd = {};
  std::string command_line = "panic=-1 console=ttyS0";
  KernelEntry entry = KernelEntry::kAuto;
};

Result<BootState> boot(const Machine& machine, const Boot& what) {
  const Fd kernel = memfd_of(what.kernel);
  const Fd initrd = memfd_of(what.initrd.value_or(Bytes{}));
  LinuxBootRequest request{.kernel = {kernel, "k.img"},
                           .initrd = std::nullopt,
                           .command_line = what.command_line,
                           .entry = what.entry};
  if (what.initrd) request.initrd.emplace(BootFile{initrd, "i.img"});
  return load_linux(machine.memory, machine.layout, request);
}

TEST(LinuxBoot, ZeroPageTellsTheKernelWhereThingsAre) {
  Machine machine(256);
  auto state = boot(machine, {});
  ASSERT_TRUE(state.has_value()) << state.error().what();
  const boot_params params = zero_page(machine);
  EXPECT_EQ(+params.hdr.type_of_loader, 0xFF);
  EXPECT_EQ(+params.hdr.boot_flag, 0xAA55);
  EXPECT_EQ(+params.hdr.header, 0x53726448u);
  EXPECT_EQ(+params.hdr.kernel_alignment, 0x1000000u);
  EXPECT_EQ(+params.hdr.cmd_line_ptr, 0x20000u);
  EXPECT_EQ(+params.hdr.version, 0x020F) << "the kernel's own header is passed on";
  EXPECT_EQ(+params.hdr.ramdisk_size, 0u);
  EXPECT_EQ(+params.e820_entries, 6);
  const boot_e820_entry ram = params.e820_table[2];
  EXPECT_EQ(+ram.addr, 0x100000u);
  EXPECT_EQ(+ram.size, 255 * kMiB);
  EXPECT_EQ(+ram.type, 1u);
  EXPECT_EQ(state->registers.rip, 0x200200u);
  EXPECT_EQ(state->registers.rsi, 0x7000u);
  EXPECT_EQ(state->registers.rsp, 0x8000u);
}

TEST(LinuxBoot, CommandLineEndsWithNul) {
  Machine machine(64);
  ASSERT_TRUE(machine.memory.write(kCommandLine + 9, uint8_t{0xFF}).has_value());
  ASSERT_TRUE(boot(machine, {.command_line = "panic=-1x"}).has_value());
  std::array<char, 10> line;
  ASSERT_TRUE(
      machine.memory.read_bytes(kCommandLine, std::as_writable_bytes(std::span(line))).has_value());
  EXPECT_STREQ(line.data(), "panic=-1x");
}

TEST(LinuxBoot, SetupDataHoldsAFreshSeed) {
  Machine machine(64);
  auto seed = [&machine] {
    EXPECT_TRUE(boot(machine, {}).has_value());
    const uint64_t node = zero_page(machine).hdr.setup_data;
    EXPECT_EQ(node, 0x20800u);
    EXPECT_EQ(machine.memory.read<uint64_t>(GuestAddress{node}), uint64_t{0}) << "the last node";
    EXPECT_EQ(machine.memory.read<uint32_t>(GuestAddress{node + 8}), uint32_t{SETUP_RNG_SEED});
    EXPECT_EQ(machine.memory.read<uint32_t>(GuestAddress{node + 12}), 256u);
    return *machine.memory.read<std::array<uint64_t, 32>>(GuestAddress{node + 16});
  };
  const auto first = seed();
  EXPECT_NE(first, seed());
  EXPECT_NE(first[31], 0u);
}

TEST(LinuxBoot, InitrdGoesToTheTopOfMemory) {
  Machine machine(256);
  auto state = boot(machine, {.initrd = Bytes(5000, std::byte{0x77})});
  ASSERT_TRUE(state.has_value()) << state.error().what();
  EXPECT_EQ(*state->initrd, (AddressRange{GuestAddress{256 * kMiB - 0x2000}, 5000}));
  const boot_params params = zero_page(machine);
  EXPECT_EQ(+params.hdr.ramdisk_image, 256 * kMiB - 0x2000);
  EXPECT_EQ(+params.hdr.ramdisk_size, 5000u);
  EXPECT_EQ(machine.byte_at(256 * kMiB - 0x2000 + 4999), 0x77);
}

TEST(LinuxBoot, InitrdAboveFourGigabytesWhenTheKernelCan) {
  Machine machine(6144);
  const Bytes initrd(0x1000, std::byte{0x77});
  auto state = boot(machine, {.initrd = initrd});
  ASSERT_TRUE(state.has_value()) << state.error().what();
  EXPECT_EQ(state->initrd->start.value, 0x1AFFFF000u);
  EXPECT_EQ(+zero_page(machine).hdr.ramdisk_image, 0xAFFFF000u);
  EXPECT_EQ(+zero_page(machine).ext_ramdisk_image, 1u);
}

TEST(LinuxBoot, InitrdStaysBelowTheKernelsLimit) {
  Machine machine(3328);
  const Bytes initrd(0x1000, std::byte{0x77});
  auto start = [&](const Bytes& kernel, KernelEntry entry = KernelEntry::kAuto) {
    return boot(machine, {.kernel = kernel, .initrd = initrd, .entry = entry})->initrd->start.value;
  };
  EXPECT_EQ(start(bzimage({.xloadflags = XLF_KERNEL_64, .initrd_max = 0x7FFFFFFF})), 0x7FFFF000u);
  EXPECT_EQ(start(bzimage({.xloadflags = XLF_KERNEL_64, .initrd_max = 0})), 0x37FFF000u);
  EXPECT_EQ(start(elf64()), 0x37FFF000u);
  EXPECT_EQ(start(elf64({.notes = pvh_notes(0x1000000)}), KernelEntry::kPvh), 0x37FFF000u);
}

TEST(LinuxBoot, InitrdThatJustFitsAndOneThatDoesNot) {
  Machine machine(32);
  const Bytes kernel = bzimage({.init_size = 0x400000});  // takes up to 20 MiB
  EXPECT_TRUE(boot(machine, {.kernel = kernel, .initrd = Bytes(12 * kMiB)}).has_value());
  EXPECT_THAT(
      error_of(boot(machine, {.kernel = kernel, .initrd = Bytes(12 * kMiB + 1)})),
      AllOf(HasSubstr("i.img"), HasSubstr("13 MiB"), HasSubstr("32 MiB"), HasSubstr("--mem")));
}

TEST(LinuxBoot, EmptyInitrdIsRefused) {
  Machine machine(64);
  EXPECT_THAT(error_of(boot(machine, {.initrd = Bytes{}})),
              AllOf(HasSubstr("i.img"), HasSubstr("empty")));
}

TEST(LinuxBoot, CommandLineLongerThanTheKernelTakes) {
  Machine machine(64);
  const Bytes kernel = bzimage({.cmdline_size = 300});
  EXPECT_TRUE(boot(machine, {.kernel = kernel, .command_line = std::string(300, 'a')}).has_value());
  EXPECT_THAT(error_of(boot(machine, {.kernel = kernel, .command_line = std::string(301, 'a')})),
              AllOf(HasSubstr("301 bytes"), HasSubstr("takes 300")));
  const Bytes old = bzimage({.cmdline_size = 0});
  EXPECT_TRUE(boot(machine, {.kernel = old, .command_line = std::string(255, 'a')}).has_value());
  EXPECT_FALSE(boot(machine, {.kernel = old, .command_line = std::string(256, 'a')}).has_value());
}

TEST(LinuxBoot, PvhStartInfo) {
  Machine machine(256);
  auto state = boot(machine, {.kernel = elf64({.notes = pvh_notes(0x1000020)}),
                              .initrd = Bytes(100),
                              .entry = KernelEntry::kPvh});
  ASSERT_TRUE(state.has_value()) << state.error().what();
  EXPECT_EQ(state->mode, EntryMode::kPvh);
  EXPECT_EQ(state->registers.rip, 0x1000020u);
  EXPECT_EQ(state->registers.rflags, 2u);
  const GuestAddress info{state->registers.rbx};
  auto word = [&](uint64_t offset) { return *machine.memory.read<uint32_t>(info + offset); };
  auto quad = [&](uint64_t offset) { return *machine.memory.read<uint64_t>(info + offset); };
  EXPECT_EQ(word(0), 0x336EC578u);
  EXPECT_EQ(word(4), 1u);
  EXPECT_EQ(word(12), 1u) << "modules";
  EXPECT_EQ(quad(24), 0x20000u) << "command line";
  EXPECT_EQ(quad(32), 0xE0000u) << "RSDP";
  EXPECT_EQ(word(48), 6u) << "memory map entries";
  const GuestAddress module{quad(16)};
  EXPECT_EQ(machine.memory.read<uint64_t>(module), 256 * kMiB - 0x1000);
  EXPECT_EQ(machine.memory.read<uint64_t>(module + 8), uint64_t{100});
  const GuestAddress map{quad(40)};
  EXPECT_EQ(machine.memory.read<uint64_t>(map + 2 * 24), uint64_t{0x100000});
  EXPECT_EQ(machine.memory.read<uint64_t>(map + 2 * 24 + 8), 255 * kMiB);
  EXPECT_EQ(machine.memory.read<uint32_t>(map + 2 * 24 + 16), 1u);
}

}  // namespace
}  // namespace crosvm::x86_64
