#include "arch/x86_64/cmdline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arch/x86_64/test_images.h"

namespace crosvm::x86_64 {
namespace {

using test::error_of;
using testing::AllOf;
using testing::HasSubstr;

TEST(CommandLine, BuiltInParametersComeFirst) {
  EXPECT_EQ(build_command_line({.consoles = {}, .early_console = {}, .params = {}}), "panic=-1");
  EXPECT_EQ(
      build_command_line({.consoles = {"ttyS0", "hvc1"},
                          .early_console = EarlyConsole{.address = 0x3F8},
                          .params = {"quiet", "root=/dev/vda ro"}}),
      "panic=-1 console=ttyS0 console=hvc1 earlycon=uart8250,io,0x3f8 quiet root=/dev/vda ro");
}

TEST(CommandLine, EarlyConsoleInMemory) {
  EXPECT_EQ(build_command_line({.consoles = {},
                                .early_console = EarlyConsole{.mmio = true, .address = 0xD0001000},
                                .params = {}}),
            "panic=-1 earlycon=uart8250,mmio,0xd0001000");
}

TEST(CommandLine, OnlyPrintableAscii) {
  auto with = [](std::string param) {
    return build_command_line({.consoles = {}, .early_console = {}, .params = {std::move(param)}});
  };
  EXPECT_TRUE(with(" ~").has_value());
  EXPECT_THAT(error_of(with("init=/a\nb")),
              AllOf(HasSubstr("init=/a"), HasSubstr("0x0a"), HasSubstr("position 7")));
  EXPECT_FALSE(with("\x7F").has_value());
  EXPECT_FALSE(with("caf\xC3\xA9").has_value());
  EXPECT_FALSE(with(std::string("a\0b", 3)).has_value());
}

TEST(CommandLine, NoKernelTakesMoreThanTwoKilobytes) {
  const size_t room = 2047 - std::string("panic=-1 ").size();
  auto with = [](size_t length) {
    return build_command_line(
        {.consoles = {}, .early_console = {}, .params = {std::string(length, 'a')}});
  };
  EXPECT_EQ(with(room)->size(), 2047u);
  EXPECT_THAT(error_of(with(room + 1)), AllOf(HasSubstr("2048 bytes"), HasSubstr("takes 2047")));
  EXPECT_FALSE(check_command_line(std::string(2048, 'a'), UINT32_MAX).has_value());
}

}  // namespace
}  // namespace crosvm::x86_64
