#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "platform/debugcon.h"
#include "platform/i8042.h"

namespace crosvm {
namespace {

class TextOutput : public SerialOutput {
 public:
  explicit TextOutput(std::string& text) : text_(text) {}
  Result<void> write(std::span<const std::byte> bytes) override {
    text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }

 private:
  std::string& text_;
};

uint8_t read_byte(BusDevice& device, uint64_t offset) {
  std::byte value{0};
  device.read(offset, std::span(&value, 1));
  return std::to_integer<uint8_t>(value);
}

void write_byte(BusDevice& device, uint64_t offset, uint8_t value) {
  std::byte byte{value};
  device.write(offset, std::span(&byte, 1));
}

TEST(DebugconTest, OneByteWritesReachTheOutput) {
  std::string text;
  Debugcon debugcon(std::make_unique<TextOutput>(text));
  EXPECT_EQ(read_byte(debugcon, 0), 0xe9);
  for (char c : std::string("log\n")) write_byte(debugcon, 0, static_cast<uint8_t>(c));
  std::vector<std::byte> wide(2, std::byte{'w'});
  debugcon.write(0, wide);
  EXPECT_EQ(text, "log\n");
}

TEST(I8042Test, Reads) {
  I8042 whole([] {});
  const uint8_t expected[] = {0x20, 0x00, 0x00, 0x00};  // ports 0x61 to 0x64
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(read_byte(whole, i), expected[i]);
  std::vector<std::byte> wide(2);
  whole.read(0, wide);
  EXPECT_EQ(wide, std::vector<std::byte>(2));
  I8042 beside_pit([] {}, I8042::kBaseBesidePit);
  for (uint64_t i = 0; i < 3; ++i) EXPECT_EQ(read_byte(beside_pit, i), 0x00);
}

TEST(I8042Test, OnlyTheResetCommandResets) {
  int resets = 0;
  I8042 device([&] { ++resets; });
  for (uint64_t offset = 0; offset < 4; ++offset) {
    for (int value = 0; value < 256; ++value) {
      if (offset == 3 && value == 0xfe) continue;
      write_byte(device, offset, static_cast<uint8_t>(value));
    }
  }
  std::vector<std::byte> wide(2, std::byte{0xfe});
  device.write(3, wide);
  EXPECT_EQ(resets, 0);
  write_byte(device, 3, 0xfe);
  EXPECT_EQ(resets, 1);
  I8042 beside_pit([&] { ++resets; }, I8042::kBaseBesidePit);
  write_byte(beside_pit, 2, 0xfe);
  EXPECT_EQ(resets, 2);
}

}  // namespace
}  // namespace crosvm
