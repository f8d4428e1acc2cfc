#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace crosvm::log {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

class LogTest : public testing::Test {
 protected:
  ~LogTest() override { EXPECT_TRUE(configure({.use_syslog = false})); }

  static void use(const std::string& filter) {
    ASSERT_TRUE(configure({.filter = filter, .use_syslog = false}));
  }
  static std::string captured(const std::function<void()>& work) {
    testing::internal::CaptureStderr();
    work();
    return testing::internal::GetCapturedStderr();
  }
  static void say_all() {
    error("an error");
    warn("a warning");
    info("a piece of information");
    debug("a detail");
  }
};

TEST_F(LogTest, RecordHasTimeLevelModuleAndText) {
  use("info");
  std::string said = captured([] { warn("disk {} of {}", 1, "two"); });
  EXPECT_THAT(said, MatchesRegex("\\[[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\."
                                 "[0-9]{9}\\+00:00 WARN crosvm::base::log_test\\] "
                                 "disk 1 of two\n"));
}

TEST_F(LogTest, LevelIsTheLowestThatIsWritten) {
  use("warn");
  std::string said = captured(say_all);
  EXPECT_THAT(said, HasSubstr("an error"));
  EXPECT_THAT(said, HasSubstr("a warning"));
  EXPECT_THAT(said, Not(HasSubstr("information")));
  use("off");
  EXPECT_EQ(captured(say_all), "");
}

TEST_F(LogTest, ModulesHaveLevelsOfTheirOwn) {
  for (const char* filter :
       {"off,base=debug", "off,log_test=debug", "off,crosvm::base::log_test=debug"}) {
    use(filter);
    EXPECT_THAT(captured(say_all), HasSubstr("a detail")) << filter;
  }
  use("debug,base=error");
  std::string said = captured(say_all);
  EXPECT_THAT(said, HasSubstr("an error"));
  EXPECT_THAT(said, Not(HasSubstr("a warning")));
  use("off,log_tes=debug,og_test=debug,base::log=debug");  // parts of names name nothing
  EXPECT_EQ(captured(say_all), "");
}

TEST_F(LogTest, WrongFilterIsRefusedAndTheOldOneStays) {
  use("off");
  auto result = configure({.filter = "info,base=loud", .use_syslog = false});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().what(), HasSubstr("\"loud\""));
  EXPECT_EQ(captured(say_all), "");
}

TEST_F(LogTest, TextCannotForgeARecordOrSteerTheTerminal) {
  use("info");
  std::string said = captured([] { info("a\nb\x1b[2Jc\rd\te{}", '\x7f'); });
  EXPECT_THAT(said, HasSubstr("] a\\nb\\x1b[2Jc\\x0dd e\\x7f\n"));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1);
}

TEST_F(LogTest, OnlyPrintableUtf8IsWrittenAsItIs) {
  use("info");
  // U+009B, the one-character form of ESC [; U+0085, a line's end; their bytes alone.
  std::string said = captured([] {
    info("{}",
         "a\xc2\x9b"
         "2J\xc2\x85"
         "b\x9b"
         "c\x85");
  });
  EXPECT_THAT(said, HasSubstr("] a\\xc2\\x9b2J\\xc2\\x85b\\x9bc\\x85\n"));
  said = captured([] { info("{}", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xb3 \xc2\xa0"); });
  EXPECT_THAT(said, HasSubstr("] \xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xb3 \xc2\xa0\n"));
  said = captured([] { info("{}", "\xc0\x8a|\xed\xa0\x80|\xff|\xe2\x82"); });
  EXPECT_THAT(said, HasSubstr("] \\xc0\\x8a|\\xed\\xa0\\x80|\\xff|\\xe2\\x82\n"));
}

TEST_F(LogTest, ThreadsDoNotMixTheirRecords) {
  use("info");
  std::string said = captured([] {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([] {
        for (int j = 0; j < 50; ++j) info("{}", std::string(200, 'x'));
      });
    }
    use("info");  // while they write
    for (auto& thread : threads) thread.join();
  });
  size_t records = 0;
  for (size_t start = 0; start < said.size(); start = said.find('\n', start) + 1, ++records) {
    std::string line = said.substr(start, said.find('\n', start) - start);
    EXPECT_TRUE(line.starts_with("[") && line.ends_with("] " + std::string(200, 'x'))) << line;
  }
  EXPECT_EQ(records, 200u);
}

TEST(LogModule, IsMadeOfThePathBelowSrc) {
  EXPECT_EQ(module_of("/work/x/src/platform/serial.cc"), "crosvm::platform::serial");
  EXPECT_EQ(module_of("src/cli/main/main.cc"), "crosvm::cli::main::main");
}

}  // namespace
}  // namespace crosvm::log
