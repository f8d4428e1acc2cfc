#include "platform/serial_output.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "base/log.h"

namespace crosvm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

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

struct Pipe {
  Pipe() {
    int ends[2];
    CHECK(::pipe2(ends, O_CLOEXEC) == 0);
    reader = Fd(ends[0]);
    writer = Fd(ends[1]);
  }
  void fill() {
    ::fcntl(writer.get(), F_SETFL, O_NONBLOCK);
    const std::vector<char> much(1 << 20);
    while (::write(writer.get(), much.data(), much.size()) > 0) {
    }
    ::fcntl(writer.get(), F_SETFL, 0);
  }
  Fd reader;
  Fd writer;
};

TEST(FdOutputTest, WritesEverything) {
  Pipe pipe;
  Fd stop = *make_eventfd();
  auto output = *make_fd_output(std::move(pipe.writer), stop, "a pipe");
  ASSERT_TRUE(output->write(bytes_of("hello")));
  char text[6] = {};
  EXPECT_EQ(::read(pipe.reader.get(), text, 5), 5);
  EXPECT_STREQ(text, "hello");
}

TEST(FdOutputTest, LosesNothingToASlowReader) {
  Pipe pipe;
  Fd stop = *make_eventfd();
  auto output = *make_fd_output(std::move(pipe.writer), stop, "a pipe");
  const std::string sent(300000, 's');
  size_t received = 0;
  std::thread reader([&] {
    char buffer[1000];
    while (received < sent.size()) {
      const ssize_t got = ::read(pipe.reader.get(), buffer, sizeof(buffer));
      if (got <= 0) break;
      received += static_cast<size_t>(got);
    }
  });
  ASSERT_TRUE(output->write(bytes_of(sent)));
  reader.join();
  EXPECT_EQ(received, sent.size());
}

TEST(FdOutputTest, TheEndOfTheVmEndsTheWait) {
  Pipe pipe;
  pipe.fill();
  Fd stop = *make_eventfd();
  auto output = *make_fd_output(std::move(pipe.writer), stop, "a pipe");
  std::thread stopper([&] {
    ::usleep(20000);
    signal_eventfd(stop);
  });
  auto written = output->write(bytes_of("x"));
  stopper.join();
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), std::errc::operation_canceled);
  EXPECT_FALSE(output->write(bytes_of("y")));  // the event was not drained
}

TEST(FdOutputTest, WhatFitsIsWrittenWhileTheVmEnds) {
  Pipe pipe;
  Fd stop = *make_eventfd();
  signal_eventfd(stop);
  auto output = *make_fd_output(std::move(pipe.writer), stop, "a pipe");
  EXPECT_TRUE(output->write(bytes_of("last words")));
}

TEST(FdOutputTest, AReaderThatWentAwayIsAnError) {
  ::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  pipe.reader = Fd();
  Fd stop = *make_eventfd();
  auto output = *make_fd_output(std::move(pipe.writer), stop, "the pipe");
  auto written = output->write(bytes_of("x"));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), std::errc::broken_pipe);
  EXPECT_THAT(written.error().what(), HasSubstr("the pipe"));
}

TEST(TimestampOutputTest, StampsTheStartOfEachLine) {
  std::string text;
  timespec now{.tv_sec = 951827696, .tv_nsec = 7};  // 2000-02-29 12:34:56
  auto output = make_timestamp_output(std::make_unique<TextOutput>(text), [&] { return now; });
  for (char c : std::string("ab\n\nc")) ASSERT_TRUE(output->write(bytes_of({&c, 1})));
  const std::string stamp = "[ 2000-02-29 12:34:56.000000007 ]: ";
  EXPECT_EQ(text, stamp + "ab\n" + stamp + "\n" + stamp + "c");
  text.clear();
  now = {.tv_sec = 951827697, .tv_nsec = 999999999};
  ASSERT_TRUE(output->write(bytes_of("d\ne\n")));
  EXPECT_EQ(text, "d\n[ 2000-02-29 12:34:57.999999999 ]: e\n");
}

/// Runs `send` and returns what it logs to stderr.
template <class F>
std::string logged(F send) {
  CHECK(log::configure({.filter = "info", .use_syslog = false}));
  ::testing::internal::CaptureStderr();
  send();
  return ::testing::internal::GetCapturedStderr();
}

TEST(SyslogOutputTest, OneRecordPerLine) {
  const std::string text = logged([] {
    auto output = make_syslog_output("serial 1");
    ASSERT_TRUE(output->write(bytes_of("first\r\nsecond\nrest")));
  });
  EXPECT_THAT(text, HasSubstr("] serial 1: first\n"));
  EXPECT_THAT(text, HasSubstr("] serial 1: second\n"));
  EXPECT_THAT(text, HasSubstr("] serial 1: rest\n"));
  EXPECT_THAT(text, HasSubstr("INFO"));
}

TEST(SyslogOutputTest, AGuestCannotDriveTheUsersTerminal) {
  const std::string text = logged([] {
    auto output = make_syslog_output("serial 1");
    ASSERT_TRUE(output->write(bytes_of(std::string_view("\x1b[2Ja\0b\tc\n", 9))));
  });
  EXPECT_THAT(text, HasSubstr("\\x1b[2Ja\\x00b"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(SyslogOutputTest, ALineWithoutEndIsCut) {
  const std::string text = logged([] {
    auto output = make_syslog_output("serial 1");
    ASSERT_TRUE(output->write(bytes_of(std::string(3000, 'y'))));
  });
  EXPECT_THAT(text, HasSubstr(std::string(1024, 'y') + "\n"));
  EXPECT_THAT(text, Not(HasSubstr(std::string(1025, 'y'))));
}

}  // namespace
}  // namespace crosvm
