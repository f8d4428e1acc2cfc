#include "memory/host_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;
constexpr HostMemory kHost{.total = 1000 * kMiB, .available = 600 * kMiB, .swap_total = 200 * kMiB};

TEST(HostMemory, ReadsTheLinesOfMeminfo) {
  const auto host = parse_meminfo(
      "MemTotal:       24731916 kB\nMemFree:         1024 kB\nMemAvailable:   2048 kB\n"
      "SwapCached:            7 kB\nSwapTotal:             4 kB\n");
  ASSERT_TRUE(host);
  EXPECT_EQ(host->total, uint64_t{24731916} * 1024);
  EXPECT_EQ(host->available, 2u * kMiB);
  EXPECT_EQ(host->swap_total, 4096u);
}

TEST(HostMemory, NamesWhatIsMissingOrMalformed) {
  const auto missing = parse_meminfo("MemTotal: 1 kB\nSwapTotal: 0 kB");
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().what(), HasSubstr("MemAvailable"));
  for (const char* line :
       {"MemTotal: x kB", "MemTotal:", "MemTotal: 5", "MemTotal: 5 MB",
        "MemTotal: 99999999999999999999 kB", "MemTotal: 18446744073709551 kB0"}) {
    EXPECT_FALSE(parse_meminfo(line)) << line;
  }
}

TEST(HostMemory, AcceptsWhatIsAvailable) {
  const auto verdict = judge_guest_memory(600 * kMiB, kHost);
  ASSERT_TRUE(verdict);
  EXPECT_FALSE(verdict->has_value());
}

TEST(HostMemory, WarnsBeyondAvailable) {
  const auto verdict = judge_guest_memory(601 * kMiB, kHost);
  ASSERT_TRUE(verdict);
  ASSERT_TRUE(verdict->has_value());
  EXPECT_THAT(**verdict, HasSubstr("601 MiB"));
  EXPECT_THAT(**verdict, HasSubstr("600 MiB"));
}

TEST(HostMemory, RefusesBeyondRamAndSwap) {
  EXPECT_TRUE(judge_guest_memory(1200 * kMiB, kHost));
  const auto verdict = judge_guest_memory(1201 * kMiB, kHost);
  ASSERT_FALSE(verdict);
  EXPECT_EQ(verdict.error().code(), std::errc::not_enough_memory);
  EXPECT_THAT(verdict.error().what(), HasSubstr("1201 MiB"));
  EXPECT_THAT(verdict.error().what(), HasSubstr("1000 MiB of RAM"));
  EXPECT_THAT(verdict.error().what(), HasSubstr("less than 1200 MiB"));
}

TEST(HostMemory, ThisHostHoldsAPageButNotAnExbibyte) {
  EXPECT_TRUE(check_host_memory(4096));
  const auto verdict = check_host_memory(uint64_t{1} << 60);
  ASSERT_FALSE(verdict);
  EXPECT_EQ(verdict.error().code(), std::errc::not_enough_memory);
}

}  // namespace
}  // namespace crosvm
