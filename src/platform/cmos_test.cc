#include "platform/cmos.h"

#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

#include "platform/rtc_time.h"

namespace crosvm {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kMiB = 1024 * 1024;
constexpr uint64_t kGiB = 1024 * kMiB;

/// UTC.
time_t at(int year, int month, int day, int hour = 0, int minute = 0, int second = 0) {
  tm utc{};
  utc.tm_year = year - 1900;
  utc.tm_mon = month - 1;
  utc.tm_mday = day;
  utc.tm_hour = hour;
  utc.tm_min = minute;
  utc.tm_sec = second;
  return ::timegm(&utc);
}

class CmosTest : public ::testing::Test {
 protected:
  CmosTest() { make({.below_4g = 256 * kMiB}); }

  void make(Cmos::Memory memory) {
    Fd irq = *make_eventfd();
    irq_ = *irq.duplicate();
    cmos_ = *Cmos::create(
        *loop_, memory, std::move(irq), [this](Fd clear) { wakes_.push_back(std::move(clear)); },
        [this] { return now_; });
  }

  uint8_t port_read(uint64_t offset) {
    std::byte value{0};
    cmos_->read(offset, std::span(&value, 1));
    return std::to_integer<uint8_t>(value);
  }
  void port_write(uint64_t offset, uint8_t value) {
    std::byte byte{value};
    cmos_->write(offset, std::span(&byte, 1));
  }
  uint8_t read(uint8_t index) {
    port_write(0, index);
    return port_read(1);
  }
  void write(uint8_t index, uint8_t value) {
    port_write(0, index);
    port_write(1, value);
  }
  void set_alarm(uint8_t month, uint8_t day, uint8_t hour, uint8_t minute, uint8_t second) {
    write(0x0b, 0x02);
    write(0x01, second);
    write(0x03, minute);
    write(0x05, hour);
    write(0x33, day);
    write(0x34, month);
    write(0x0b, 0x22);
  }
  void run_loop() {
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(loop_->run_once(milliseconds(10)));
  }
  uint64_t interrupts() { return drain_eventfd(irq_); }

  timespec now_{.tv_sec = at(2026, 8, 5, 13, 59, 58), .tv_nsec = 0};
  std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
  Fd irq_;
  std::vector<Fd> wakes_;
  std::unique_ptr<Cmos> cmos_;
};

TEST_F(CmosTest, TheTimeIsTheHostsInBcd) {
  const std::pair<uint8_t, uint8_t> expected[] = {
      {0x00, 0x58}, {0x02, 0x59}, {0x04, 0x13}, {0x06, 0x04},  // Wednesday
      {0x07, 0x05}, {0x08, 0x08}, {0x09, 0x26}, {0x32, 0x20}};
  for (auto [index, value] : expected) EXPECT_EQ(read(index), value) << int{index};
  now_.tv_sec = at(1999, 12, 31, 23, 59, 59);
  EXPECT_EQ(read(0x09), 0x99);
  EXPECT_EQ(read(0x32), 0x19);
  now_.tv_sec += 1;
  EXPECT_EQ(read(0x09), 0x00);
  EXPECT_EQ(read(0x32), 0x20);
  EXPECT_EQ(read(0x06), 0x07);  // Saturday
  now_.tv_sec += 24 * 3600;
  EXPECT_EQ(read(0x06), 0x01);  // Sunday
}

TEST_F(CmosTest, WritesDoNotSetTheClock) {
  for (uint8_t index : {0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32}) {
    const uint8_t before = read(index);
    write(index, 0x11);
    EXPECT_EQ(read(index), before);
  }
}

TEST_F(CmosTest, IndexIsReadableAndHas7Bits) {
  port_write(0, 0xff);
  EXPECT_EQ(port_read(0), 0x7f);
  port_write(0, 0x8d);
  EXPECT_EQ(port_read(0), 0x0d);
  EXPECT_EQ(port_read(1), 0x80);
}

TEST_F(CmosTest, OtherRegistersAreStorage) {
  for (int index = 0; index < 128; ++index) {
    switch (index) {
      case 0x00:
      case 0x02:
      case 0x04:
      case 0x06:
      case 0x07:
      case 0x08:
      case 0x09:
      case 0x0b:
      case 0x0c:
      case 0x0d:
      case 0x32:
        continue;
      default:
        write(static_cast<uint8_t>(index), static_cast<uint8_t>(index ^ 0xa5));
    }
  }
  EXPECT_EQ(read(0x0a), 0x0a ^ 0xa5);
  EXPECT_EQ(read(0x0f), 0x0f ^ 0xa5);
  EXPECT_EQ(read(0x7f), 0x7f ^ 0xa5);
  EXPECT_EQ(read(0x34), 0x34 ^ 0xa5);
}

TEST_F(CmosTest, RegisterBKeepsAlarmEnableAlone) {
  EXPECT_EQ(read(0x0b), 0x02);
  for (int value = 0; value < 256; ++value) {
    write(0x0b, static_cast<uint8_t>(value));
    EXPECT_EQ(read(0x0b), (value & 0x20) | 0x02);
  }
}

TEST_F(CmosTest, RegistersCAndDAreReadOnly) {
  write(0x0c, 0xff);
  write(0x0d, 0x00);
  EXPECT_EQ(read(0x0c), 0x00);
  EXPECT_EQ(read(0x0d), 0x80);
}

TEST_F(CmosTest, OnlyOneByteAccessesCount) {
  write(0x0f, 0x77);
  for (size_t size : {0u, 2u, 4u, 8u}) {
    std::vector<std::byte> data(size, std::byte{0x13});
    cmos_->write(0, data);
    cmos_->write(1, data);
    data.assign(size, std::byte{0});
    cmos_->read(0, data);
    cmos_->read(1, data);
    EXPECT_EQ(data, std::vector<std::byte>(size));
  }
  EXPECT_EQ(port_read(0), 0x0f);
  EXPECT_EQ(port_read(1), 0x77);
}

TEST_F(CmosTest, MemorySize) {
  struct Case {
    Cmos::Memory memory;
    uint32_t low;
    uint32_t high;
  };
  const Case cases[] = {{{0, 0}, 0, 0},
                        {{16 * kMiB, 0}, 0, 0},
                        {{16 * kMiB + 128 * 1024, 0}, 2, 0},
                        {{256 * kMiB, 0}, 0xf00, 0},
                        {{3328 * kMiB, 5 * kGiB}, 0xcf00, 0x14000},
                        {{4 * kGiB, 0}, 0xff00, 0},
                        {{8 * kGiB, 2048 * kGiB}, 0xffff, 0xffffff}};
  for (const Case& one : cases) {
    make(one.memory);
    EXPECT_EQ(read(0x34) | read(0x35) << 8, one.low);
    EXPECT_EQ(read(0x5b) | read(0x5c) << 8 | read(0x5d) << 16, one.high);
  }
}

TEST_F(CmosTest, AlarmInterruptsAndWakes) {
  set_alarm(0x08, 0x05, 0x13, 0x59, 0x59);
  run_loop();
  EXPECT_EQ(interrupts(), 0u);
  EXPECT_EQ(read(0x0c), 0x00);
  now_ = {.tv_sec = at(2026, 8, 5, 13, 59, 58), .tv_nsec = 990000000};
  write(0x0b, 0x22);  // computed again with every write
  run_loop();         // the timer is early by this clock, which stands
  EXPECT_EQ(interrupts(), 0u);
  now_ = {.tv_sec = at(2026, 8, 5, 13, 59, 59), .tv_nsec = 0};
  run_loop();
  EXPECT_EQ(interrupts(), 1u);
  ASSERT_EQ(wakes_.size(), 1u);
  EXPECT_EQ(drain_eventfd(wakes_[0]), 0u);  // not dealt with yet
  EXPECT_EQ(read(0x0c), 0xa0);
  EXPECT_EQ(drain_eventfd(wakes_[0]), 1u);
  EXPECT_EQ(read(0x0c), 0x00);  // once
  run_loop();
  EXPECT_EQ(interrupts(), 0u);
}

TEST_F(CmosTest, TheAlarmSeenByPollingDoesNotRingAgain) {
  now_ = {.tv_sec = at(2026, 8, 5, 13, 59, 58), .tv_nsec = 0};
  set_alarm(0x08, 0x05, 0x14, 0x00, 0x00);
  run_loop();
  now_.tv_sec += 2;
  EXPECT_EQ(read(0x0c), 0xa0);
  write(0x0a, 0x00);
  run_loop();
  EXPECT_EQ(read(0x0c), 0x00);
  EXPECT_TRUE(wakes_.empty());
}

TEST_F(CmosTest, DisablingTheAlarmClearsItsSignal) {
  set_alarm(0x08, 0x05, 0x13, 0x59, 0x58);  // now, on the second
  run_loop();
  ASSERT_EQ(wakes_.size(), 1u);
  write(0x0b, 0x02);
  EXPECT_EQ(drain_eventfd(wakes_[0]), 1u);
  EXPECT_EQ(read(0x0c), 0x00);
}

TEST_F(CmosTest, ADisabledAlarmDoesNotRing) {
  now_.tv_nsec = 980000000;
  set_alarm(0x08, 0x05, 0x13, 0x59, 0x59);
  run_loop();
  write(0x0b, 0x02);
  now_.tv_sec += 5;
  for (int i = 0; i < 5; ++i) run_loop();
  EXPECT_EQ(interrupts(), 0u);
  EXPECT_EQ(read(0x0c), 0x00);
}

TEST_F(CmosTest, AnInvalidAlarmArmsNothing) {
  const std::vector<std::vector<uint8_t>> invalid = {
      {0x08, 0x05, 0x13, 0x59, 0x60}, {0x08, 0x05, 0x13, 0x60, 0x59},
      {0x08, 0x05, 0x24, 0x00, 0x00}, {0x08, 0x32, 0x13, 0x59, 0x59},
      {0x13, 0x05, 0x13, 0x59, 0x59}, {0x00, 0x05, 0x13, 0x59, 0x59},
      {0x08, 0x00, 0x13, 0x59, 0x59}, {0x08, 0x05, 0x13, 0x59, 0x5a},
      {0xff, 0xff, 0xff, 0xff, 0xff}, {0x02, 0x30, 0x00, 0x00, 0x00}};
  for (const auto& registers : invalid) {
    now_.tv_sec = at(2026, 1, 1);
    set_alarm(registers[0], registers[1], registers[2], registers[3], registers[4]);
    now_.tv_sec = at(2040, 1, 1);
    run_loop();
    EXPECT_EQ(read(0x0c), 0x00);
    EXPECT_EQ(interrupts(), 0u);
  }
}

TEST_F(CmosTest, ManyAlarmWritesCostOneUpdate) {
  for (int i = 0; i < 100000; ++i) write(0x0b, 0x22);
  run_loop();
  EXPECT_EQ(interrupts(), 0u);
}

TEST_F(CmosTest, RandomAccesses) {
  std::mt19937 random(0x70);
  for (int i = 0; i < 100000; ++i) {
    now_.tv_sec += random() % 100000;
    switch (random() % 4) {
      case 0: {
        std::vector<std::byte> data(random() % 9, static_cast<std::byte>(random()));
        cmos_->write(random() % 3, data);
        cmos_->read(random() % 3, data);
        break;
      }
      case 1:
        port_write(1, static_cast<uint8_t>(random()));
        break;
      case 2:
        port_write(0, static_cast<uint8_t>(random()));
        break;
      default:
        port_read(1);
    }
    if (i % 500 == 0) {
      ASSERT_TRUE(loop_->run_once(milliseconds(0)));
      ASSERT_EQ(read(0x0d), 0x80);
      ASSERT_EQ(read(0x0b) & 0xdf, 0x02);
    }
  }
}

TEST(RtcTimeTest, Bcd) {
  for (int value = 0; value < 100; ++value) EXPECT_EQ(from_bcd(to_bcd(value)), value);
  for (int byte = 0; byte < 256; ++byte) {
    const bool digits = (byte & 0xf) < 10 && byte < 0xa0;
    EXPECT_EQ(from_bcd(static_cast<uint8_t>(byte)).has_value(), digits);
  }
}

TEST(RtcTimeTest, NextAlarm) {
  struct Case {
    AlarmRegisters registers;
    timespec now;
    std::optional<time_t> expected;
  };
  const AlarmRegisters midnight_of_leap_day{.day = 0x29, .month = 0x02};
  const AlarmRegisters new_year{.day = 0x01, .month = 0x01};
  const AlarmRegisters last_second{0x59, 0x59, 0x23, 0x31, 0x12};
  const Case cases[] = {
      {last_second, {at(2026, 1, 1), 0}, at(2026, 12, 31, 23, 59, 59)},
      {last_second, {at(2026, 12, 31, 23, 59, 58), 999999999}, at(2026, 12, 31, 23, 59, 59)},
      {last_second, {at(2026, 12, 31, 23, 59, 59), 0}, at(2026, 12, 31, 23, 59, 59)},
      {last_second, {at(2026, 12, 31, 23, 59, 59), 1}, at(2027, 12, 31, 23, 59, 59)},
      {new_year, {at(2026, 12, 31, 23, 0, 0), 0}, at(2027, 1, 1)},
      {midnight_of_leap_day, {at(2028, 1, 1), 0}, at(2028, 2, 29)},
      {midnight_of_leap_day, {at(2027, 6, 1), 0}, at(2028, 2, 29)},
      {midnight_of_leap_day, {at(2028, 3, 1), 0}, std::nullopt},
      {midnight_of_leap_day, {at(2025, 1, 1), 0}, std::nullopt},
      {midnight_of_leap_day, {at(2099, 6, 1), 0}, std::nullopt},  // 2100 is no leap year
      {midnight_of_leap_day, {at(1999, 6, 1), 0}, at(2000, 2, 29)},
  };
  for (const Case& one : cases) {
    EXPECT_EQ(next_alarm(one.registers, one.now), one.expected) << one.now.tv_sec;
  }
}

}  // namespace
}  // namespace crosvm
