#include "platform/pm.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <random>
#include <vector>

namespace crosvm {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kStatus = 0;
constexpr uint64_t kEnable = 2;
constexpr uint64_t kControl = 4;
constexpr uint64_t kGpeStatus = 8;
constexpr uint64_t kGpeEnable = 40;

class PmTest : public ::testing::Test {
 protected:
  PmTest() {
    Fd trigger = *make_eventfd();
    Fd resample = *make_eventfd();
    trigger_ = *trigger.duplicate();
    resample_ = *resample.duplicate();
    pm_ = *Pm::create(*loop_, std::move(trigger), std::move(resample),
                      {.suspend = [this] { ++suspends_; },
                       .resume = [this] { ++resumes_; },
                       .exit = [this] { ++exits_; }});
  }

  uint16_t read16(uint64_t offset) {
    std::byte data[2]{};
    pm_->read(offset, data);
    return static_cast<uint16_t>(std::to_integer<int>(data[0]) | std::to_integer<int>(data[1])
                                                                     << 8);
  }
  void write16(uint64_t offset, uint16_t value) {
    const std::byte data[2] = {static_cast<std::byte>(value), static_cast<std::byte>(value >> 8)};
    pm_->write(offset, data);
  }
  uint8_t read8(uint64_t offset) {
    std::byte value{0};
    pm_->read(offset, std::span(&value, 1));
    return std::to_integer<uint8_t>(value);
  }
  void write8(uint64_t offset, uint8_t value) {
    std::byte byte{value};
    pm_->write(offset, std::span(&byte, 1));
  }
  bool sci() { return drain_eventfd(trigger_) != 0; }
  /// What KVM does at the guest's EOI.
  bool sci_after_eoi() {
    signal_eventfd(resample_);
    EXPECT_TRUE(loop_->run_once(milliseconds(100)));
    return sci();
  }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
  Fd trigger_;
  Fd resample_;
  int suspends_ = 0;
  int resumes_ = 0;
  int exits_ = 0;
  std::unique_ptr<Pm> pm_;
};

TEST_F(PmTest, AllRegistersStartAtZero) {
  for (uint64_t offset = 0; offset < Pm::kLength; ++offset) EXPECT_EQ(read8(offset), 0);
}

TEST_F(PmTest, EnabledPowerButtonRaisesTheSci) {
  write16(kEnable, 0x100);
  EXPECT_FALSE(sci());
  pm_->power_button();
  EXPECT_TRUE(sci());
  EXPECT_EQ(resumes_, 1);
  EXPECT_EQ(read16(kStatus), 0x100);
  EXPECT_TRUE(sci_after_eoi());  // level: it stands until the status is cleared
  write16(kStatus, 0x100);
  EXPECT_EQ(read16(kStatus), 0);
  EXPECT_FALSE(sci_after_eoi());
}

TEST_F(PmTest, ADisabledEventWaitsForItsEnable) {
  pm_->sleep_button();
  EXPECT_FALSE(sci());
  EXPECT_EQ(resumes_, 0);
  EXPECT_EQ(read16(kStatus), 0x200);
  write16(kEnable, 0x200);
  EXPECT_TRUE(sci());
}

TEST_F(PmTest, StatusBitsAreClearedOneByOne) {
  pm_->power_button();
  pm_->sleep_button();
  pm_->resumed();
  EXPECT_EQ(read16(kStatus), 0x8300);
  write16(kStatus, 0x0000);
  EXPECT_EQ(read16(kStatus), 0x8300);
  write8(kStatus + 1, 0x01);
  EXPECT_EQ(read16(kStatus), 0x8200);
  write8(kStatus, 0xff);
  EXPECT_EQ(read16(kStatus), 0x8200);
  write16(kStatus, 0xffff);
  EXPECT_EQ(read16(kStatus), 0x0000);
}

TEST_F(PmTest, BytesOfPm1Registers) {
  write8(kEnable + 1, 0x05);
  write8(kEnable, 0x20);
  EXPECT_EQ(read16(kEnable), 0x0520);
  EXPECT_EQ(read8(kEnable), 0x20);
  EXPECT_EQ(read8(kEnable + 1), 0x05);
}

TEST_F(PmTest, WakeStatusAloneIsNoEvent) {
  write16(kEnable, 0xffff);
  pm_->resumed();
  EXPECT_FALSE(sci_after_eoi());
}

TEST_F(PmTest, SleepTypes) {
  for (uint16_t type = 0; type < 8; ++type) {
    suspends_ = exits_ = 0;
    write16(kControl, static_cast<uint16_t>(type << 10));
    EXPECT_EQ(suspends_ + exits_, 0);
    write16(kControl, static_cast<uint16_t>(0x2001 | type << 10));
    EXPECT_EQ(suspends_, type == 1 ? 1 : 0);
    EXPECT_EQ(exits_, type == 0 ? 1 : 0);
    EXPECT_EQ(read16(kControl), 0x0001 | type << 10);  // SLP_EN reads 0
  }
}

TEST_F(PmTest, SleepByItsHighByte) {
  write8(kControl, 0x01);
  write8(kControl + 1, 0x24);
  EXPECT_EQ(suspends_, 1);
  EXPECT_EQ(read16(kControl), 0x0401);
  write8(kControl + 1, 0x20);
  EXPECT_EQ(exits_, 1);
}

TEST_F(PmTest, AnEventThatStandsAtSuspendResumesAtOnce) {
  write16(kControl, 0x2400);
  EXPECT_EQ(suspends_, 1);
  EXPECT_EQ(resumes_, 0);
  write16(kEnable, 0x100);
  pm_->power_button();
  resumes_ = 0;
  write16(kControl, 0x2400);
  EXPECT_EQ(suspends_, 2);
  EXPECT_EQ(resumes_, 1);
}

TEST_F(PmTest, OnlyANewEventResumes) {
  Fd clear = *make_eventfd();
  pm_->sleep_button();
  ASSERT_TRUE(pm_->gpe(2, *clear.duplicate()));
  write16(kEnable, 0x200);
  write8(kGpeEnable, 0x04);
  EXPECT_TRUE(sci());
  EXPECT_TRUE(sci_after_eoi());
  EXPECT_EQ(resumes_, 0) << "neither the guest's enabling nor its EOI is news";
  pm_->power_button();
  pm_->sleep_button();
  pm_->rtc_wake(Fd());
  ASSERT_TRUE(pm_->gpe(2));
  EXPECT_EQ(resumes_, 4);
}

TEST_F(PmTest, GeneralPurposeEvents) {
  for (uint32_t number : {0u, 7u, 8u, 100u, 255u}) {
    const uint64_t byte = number / 8;
    const auto bit = static_cast<uint8_t>(1 << (number % 8));
    ASSERT_TRUE(pm_->gpe(number));
    EXPECT_FALSE(sci());
    EXPECT_EQ(read8(kGpeStatus + byte), bit);
    write8(kGpeEnable + byte, bit);
    EXPECT_EQ(read8(kGpeEnable + byte), bit);
    EXPECT_TRUE(sci());
    write8(kGpeStatus + byte, bit);
    EXPECT_EQ(read8(kGpeStatus + byte), 0);
    EXPECT_FALSE(sci_after_eoi());
    write8(kGpeEnable + byte, 0);
  }
  EXPECT_EQ(pm_->gpe(256).error().code(), std::errc::invalid_argument);
}

TEST_F(PmTest, AnEventWithClearIsRaisedUntilCleared) {
  Fd clear = *make_eventfd();
  write8(kGpeEnable, 0x04);
  ASSERT_TRUE(pm_->gpe(2, *clear.duplicate()));
  EXPECT_TRUE(pm_->has_pending_clear_events());
  EXPECT_TRUE(sci());
  for (int i = 0; i < 3; ++i) {
    write8(kGpeStatus, 0x04);
    EXPECT_TRUE(sci_after_eoi());
    EXPECT_EQ(read8(kGpeStatus), 0x04);
  }
  signal_eventfd(clear);
  write8(kGpeStatus, 0x04);
  EXPECT_FALSE(sci_after_eoi());
  EXPECT_EQ(read8(kGpeStatus), 0x00);
  EXPECT_FALSE(pm_->has_pending_clear_events());
}

TEST_F(PmTest, RtcWakeIsRaisedUntilCleared) {
  Fd clear = *make_eventfd();
  write16(kEnable, 0x400);
  pm_->rtc_wake(*clear.duplicate());
  EXPECT_TRUE(sci());
  EXPECT_EQ(resumes_, 1);
  write16(kStatus, 0x400);
  EXPECT_TRUE(sci_after_eoi());
  signal_eventfd(clear);
  write16(kStatus, 0x400);
  EXPECT_FALSE(sci_after_eoi());
  EXPECT_FALSE(pm_->has_pending_clear_events());
}

TEST_F(PmTest, ClearEventsAreBoundedAndABlockingOneDoesNotBlockUs) {
  Fd blocking(::eventfd(0, EFD_CLOEXEC));
  ASSERT_TRUE(pm_->gpe(1, *blocking.duplicate()));
  signal_eventfd(resample_);
  ASSERT_TRUE(loop_->run_once(std::chrono::milliseconds(0)));
  Result<void> more;
  for (int i = 0; i < 1000 && more; ++i) more = pm_->gpe(1, *blocking.duplicate());
  ASSERT_FALSE(more.has_value());
  EXPECT_EQ(more.error().code(), std::errc::no_buffer_space);
}

TEST_F(PmTest, AlarmsWithoutEndKeepOneClearEvent) {
  Fd clear = *make_eventfd();
  for (int i = 0; i < 5000; ++i) pm_->rtc_wake(*clear.duplicate());  // more than descriptors
  signal_eventfd(clear);
  write16(kEnable, 0x400);
  sci();
  write16(kStatus, 0x400);
  EXPECT_FALSE(sci_after_eoi());
}

TEST_F(PmTest, AccessesOfOtherSizesAreIgnored) {
  write16(kEnable, 0x0100);
  for (uint64_t offset = 0; offset < Pm::kLength; ++offset) {
    for (size_t size : {0u, 2u, 3u, 4u, 8u}) {
      if (size == 2 && offset < 6 && offset % 2 == 0) continue;
      std::vector<std::byte> data(size, std::byte{0xff});
      pm_->write(offset, data);
      data.assign(size, std::byte{0});
      pm_->read(offset, data);
      EXPECT_EQ(data, std::vector<std::byte>(size)) << offset;
    }
  }
  EXPECT_EQ(read16(kEnable), 0x0100);
  EXPECT_EQ(suspends_ + exits_, 0);
  for (uint64_t offset = kGpeStatus; offset < Pm::kLength; ++offset) EXPECT_EQ(read8(offset), 0);
}

TEST_F(PmTest, RandomAccesses) {
  std::mt19937 random(0xacb1);
  for (int i = 0; i < 100000; ++i) {
    std::vector<std::byte> data(random() % 5, static_cast<std::byte>(random()));
    const uint64_t offset = random() % (Pm::kLength + 4);
    if (random() % 2 == 0) {
      pm_->write(offset, data);
    } else {
      pm_->read(offset, data);
    }
    if (i % 100 == 0) {
      ASSERT_TRUE(pm_->gpe(random() % Pm::kGpeCount));
      signal_eventfd(resample_);
      ASSERT_TRUE(loop_->run_once(milliseconds(0)));
    }
    ASSERT_EQ(read16(kControl) & 0x2000, 0);
  }
}

}  // namespace
}  // namespace crosvm
