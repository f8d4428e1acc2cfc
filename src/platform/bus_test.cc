#include "platform/bus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <thread>
#include <vector>

namespace crosvm {
namespace {

using ::testing::HasSubstr;

class RecordingDevice : public BusDevice {
 public:
  explicit RecordingDevice(std::string label) : label_(std::move(label)) {}
  std::string_view label() const override { return label_; }
  void read(uint64_t offset, std::span<std::byte> data) override {
    last_offset = offset;
    data[0] = std::byte{0x5a};
  }
  void write(uint64_t offset, std::span<const std::byte> data) override {
    last_offset = offset;
    last_size = data.size();
    ++writes;  // not atomic: the bus serialises
  }

  uint64_t last_offset = ~uint64_t{0};
  size_t last_size = 0;
  int writes = 0;

 private:
  std::string label_;
};

uint8_t read_byte(Bus& bus, uint64_t address) {
  std::byte value{0};
  bus.read(address, std::span(&value, 1));
  return std::to_integer<uint8_t>(value);
}

TEST(BusTest, RoutesByFirstByteWithOffset) {
  Bus bus("io");
  auto low = std::make_shared<RecordingDevice>("low");
  auto high = std::make_shared<RecordingDevice>("high");
  ASSERT_TRUE(bus.insert(0x10, 4, low));
  ASSERT_TRUE(bus.insert(0x14, 4, high));
  EXPECT_EQ(read_byte(bus, 0x13), 0x5a);
  EXPECT_EQ(low->last_offset, 3u);
  EXPECT_EQ(read_byte(bus, 0x14), 0x5a);
  EXPECT_EQ(high->last_offset, 0u);
}

TEST(BusTest, AnAccessPastTheEndOfARangeIsNotSplit) {
  Bus bus("io");
  auto low = std::make_shared<RecordingDevice>("low");
  auto high = std::make_shared<RecordingDevice>("high");
  ASSERT_TRUE(bus.insert(0x10, 4, low));
  ASSERT_TRUE(bus.insert(0x14, 4, high));
  std::array<std::byte, 4> data{};
  bus.write(0x13, data);
  EXPECT_EQ(low->last_offset, 3u);
  EXPECT_EQ(low->last_size, 4u);
  EXPECT_EQ(high->writes, 0);
}

TEST(BusTest, UnclaimedReadsLeaveZeroAndWritesAreDropped) {
  Bus bus("io");
  auto device = std::make_shared<RecordingDevice>("device");
  ASSERT_TRUE(bus.insert(0x10, 4, device));
  EXPECT_EQ(read_byte(bus, 0x0f), 0);
  EXPECT_EQ(read_byte(bus, 0x14), 0);
  EXPECT_EQ(read_byte(bus, std::numeric_limits<uint64_t>::max()), 0);
  std::byte value{1};
  bus.write(0x14, std::span(&value, 1));
  EXPECT_EQ(device->writes, 0);
}

TEST(BusTest, AnOverlapIsAnErrorThatNamesBoth) {
  Bus bus("io");
  ASSERT_TRUE(bus.insert(0x10, 4, std::make_shared<RecordingDevice>("first")));
  for (auto [base, length] : std::vector<std::pair<uint64_t, uint64_t>>{
           {0x10, 4}, {0x13, 1}, {0x0f, 2}, {0x00, 0x100}, {0x12, 1}}) {
    auto inserted = bus.insert(base, length, std::make_shared<RecordingDevice>("second"));
    ASSERT_FALSE(inserted) << base;
    EXPECT_EQ(inserted.error().code(), std::errc::file_exists);
    EXPECT_THAT(inserted.error().what(), HasSubstr("first"));
    EXPECT_THAT(inserted.error().what(), HasSubstr("second"));
  }
  EXPECT_TRUE(bus.insert(0x0f, 1, std::make_shared<RecordingDevice>("below")));
  EXPECT_TRUE(bus.insert(0x14, 1, std::make_shared<RecordingDevice>("above")));
}

TEST(BusTest, EmptyAndWrappingRangesAreInvalid) {
  Bus bus("mmio");
  const uint64_t max = std::numeric_limits<uint64_t>::max();
  auto device = std::make_shared<RecordingDevice>("device");
  EXPECT_EQ(bus.insert(0, 0, device).error().code(), std::errc::invalid_argument);
  EXPECT_EQ(bus.insert(max, 2, device).error().code(), std::errc::invalid_argument);
  EXPECT_EQ(bus.insert(2, max, device).error().code(), std::errc::invalid_argument);
  ASSERT_TRUE(bus.insert(max, 1, device));
  EXPECT_EQ(read_byte(bus, max), 0x5a);
}

TEST(BusTest, RemoveGivesTheRangeBack) {
  Bus bus("io");
  ASSERT_TRUE(bus.insert(0x10, 4, std::make_shared<RecordingDevice>("device")));
  EXPECT_FALSE(bus.remove(0x11));
  EXPECT_TRUE(bus.remove(0x10));
  EXPECT_FALSE(bus.remove(0x10));
  EXPECT_EQ(read_byte(bus, 0x10), 0);
  EXPECT_TRUE(bus.insert(0x12, 4, std::make_shared<RecordingDevice>("device")));
}

TEST(BusTest, ADeviceWithTwoRangesIsStillSerialised) {
  Bus bus("io");
  auto device = std::make_shared<RecordingDevice>("device");
  ASSERT_TRUE(bus.insert(0x10, 4, device));
  ASSERT_TRUE(bus.insert(0x20, 4, device));
  constexpr int kWrites = 20000;
  auto hammer = [&bus](uint64_t address) {
    std::byte value{};
    for (int i = 0; i < kWrites; ++i) bus.write(address, std::span(&value, 1));
  };
  std::thread other(hammer, 0x10);
  hammer(0x20);
  other.join();
  EXPECT_EQ(device->writes, 2 * kWrites);
}

/// A device may rearrange the bus it is on, as a hotplug controller does.
class RearrangingDevice : public RecordingDevice {
 public:
  explicit RearrangingDevice(Bus& bus) : RecordingDevice("rearranging"), bus_(bus) {}
  void write(uint64_t, std::span<const std::byte>) override {
    EXPECT_TRUE(bus_.insert(0x40, 1, std::make_shared<RecordingDevice>("plugged")));
    EXPECT_TRUE(bus_.remove(0x10));
  }

 private:
  Bus& bus_;
};

TEST(BusTest, ADeviceMayChangeTheBusWhileItIsAccessed) {
  Bus bus("io");
  ASSERT_TRUE(bus.insert(0x10, 4, std::make_shared<RearrangingDevice>(bus)));
  std::byte value{};
  bus.write(0x10, std::span(&value, 1));
  EXPECT_EQ(read_byte(bus, 0x40), 0x5a);
  EXPECT_EQ(read_byte(bus, 0x10), 0);
}

}  // namespace
}  // namespace crosvm
