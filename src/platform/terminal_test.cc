#include "platform/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <termios.h>
#include <unistd.h>

#include <string>

namespace crosvm {
namespace {

struct Filtered {
  std::string text;
  bool leaves = false;
  bool operator==(const Filtered&) const = default;
};

Filtered filter(EscapeFilter& escape, std::string_view typed) {
  std::vector<std::byte> output;
  const bool leaves = escape.filter(std::as_bytes(std::span(typed)), output);
  return {std::string(reinterpret_cast<const char*>(output.data()), output.size()), leaves};
}

TEST(EscapeFilterTest, Keys) {
  const std::pair<std::string, Filtered> cases[] = {
      {"plain \x03\x04\xff", {"plain \x03\x04\xff", false}},
      {"a\001xb", {"a", true}},
      {"\001\001", {"\001", false}},
      {"\001\001x", {"\001x", false}},
      {"\001\001\001x", {"\001", true}},
      {"\001c", {"\001c", false}},
      {"\001X", {"\001X", false}},
      {"x", {"x", false}},
      {"\001", {"", false}},
      {"", {"", false}},
  };
  for (const auto& [typed, expected] : cases) {
    EscapeFilter whole;
    EXPECT_EQ(filter(whole, typed), expected) << ::testing::PrintToString(typed);
    EscapeFilter single;  // the same one key at a time
    Filtered sum;
    for (char key : typed) {
      if (sum.leaves) break;
      Filtered part = filter(single, {&key, 1});
      sum.text += part.text;
      sum.leaves = part.leaves;
    }
    EXPECT_EQ(sum, expected) << ::testing::PrintToString(typed);
  }
}

class RawTerminalTest : public ::testing::Test {
 protected:
  RawTerminalTest() {
    int master = -1;
    int slave = -1;
    CHECK(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0);
    master_ = Fd(master);
    slave_ = Fd(slave);
  }
  termios modes() {
    termios now{};
    EXPECT_EQ(::tcgetattr(slave_.get(), &now), 0);
    return now;
  }
  Fd master_;
  Fd slave_;
};

TEST_F(RawTerminalTest, EveryKeyIsPassedAndNothingEchoed) {
  auto raw = RawTerminal::enter(slave_);
  ASSERT_TRUE(raw);
  ASSERT_TRUE(raw->has_value());
  ASSERT_EQ(::write(master_.get(), "\x03\r\x13z", 4), 4);
  char keys[8] = {};
  ASSERT_EQ(::read(slave_.get(), keys, sizeof(keys)), 4);
  EXPECT_STREQ(keys, "\x03\r\x13z");
  ::fcntl(master_.get(), F_SETFL, O_NONBLOCK);
  EXPECT_LT(::read(master_.get(), keys, sizeof(keys)), 0);  // no echo
}

TEST_F(RawTerminalTest, OutputIsStillProcessed) {
  auto raw = RawTerminal::enter(slave_);
  ASSERT_EQ(::write(slave_.get(), "a\n", 2), 2);
  char text[8] = {};
  ASSERT_EQ(::read(master_.get(), text, sizeof(text)), 3);
  EXPECT_STREQ(text, "a\r\n");
}

TEST_F(RawTerminalTest, RestoredAtTheEndOfScope) {
  const termios before = modes();
  {
    auto raw = RawTerminal::enter(slave_);
    ASSERT_TRUE(raw && *raw);
    RawTerminal moved = std::move(**raw);
    EXPECT_EQ(modes().c_lflag & (ICANON | ECHO | ISIG), 0u);
  }
  EXPECT_EQ(modes().c_lflag, before.c_lflag);
  EXPECT_EQ(modes().c_iflag, before.c_iflag);
}

TEST_F(RawTerminalTest, RestoredFromASignalHandlerAndOnlyOnce) {
  const termios before = modes();
  auto raw = RawTerminal::enter(slave_);
  restore_terminal();
  EXPECT_EQ(modes().c_lflag, before.c_lflag);
  termios other = before;
  other.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  ::tcsetattr(slave_.get(), TCSANOW, &other);
  raw->reset();  // must not undo what others did since
  restore_terminal();
  EXPECT_EQ(modes().c_lflag, other.c_lflag);
}

TEST_F(RawTerminalTest, PausedItIsAsBeforeAndResumedRaw) {
  const termios before = modes();
  auto raw = RawTerminal::enter(slave_);
  pause_terminal();
  EXPECT_EQ(modes().c_lflag, before.c_lflag);
  EXPECT_EQ(modes().c_iflag, before.c_iflag);
  resume_terminal();
  EXPECT_EQ(modes().c_lflag & (ICANON | ECHO | ISIG), 0u);
  restore_terminal();
  EXPECT_EQ(modes().c_lflag, before.c_lflag);
  resume_terminal();  // it is nobody's to be raw
  EXPECT_EQ(modes().c_lflag, before.c_lflag);
}

TEST_F(RawTerminalTest, NotATerminalIsNothing) {
  Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  auto raw = RawTerminal::enter(null);
  ASSERT_TRUE(raw);
  EXPECT_FALSE(raw->has_value());
}

}  // namespace
}  // namespace crosvm
