#include "base/log_stream.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>

namespace crosvm::log {
namespace {

using testing::HasSubstr;

std::string drain(const Fd& from) {
  ::fcntl(from.get(), F_SETFL, O_NONBLOCK);
  std::string text;
  std::array<char, 4096> buffer;
  ssize_t got;
  while ((got = ::read(from.get(), buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  return text;
}

/// Returns at all: a blocking write would hang the test.
void writes_to_a_stalled_reader(const Fd& reader, const Fd& writer) {
  LogStream stream(writer.get());
  stream.write("first");
  for (int i = 0; i < 20'000; ++i) stream.write(std::string(100, 'x'));
  EXPECT_THAT(drain(reader), HasSubstr("first\n"));
  stream.write("after");
  std::string rest = drain(reader);
  EXPECT_THAT(rest, HasSubstr("log records were lost"));
  EXPECT_THAT(rest, HasSubstr("after\n"));
}

TEST(LogStream, AFullPipeCostsRecordsAndSaysHowMany) {
  std::array<int, 2> ends;
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  writes_to_a_stalled_reader(reader, writer);
  EXPECT_EQ(::fcntl(writer.get(), F_GETFL) & O_NONBLOCK, 0)
      << "the owner's description is as it was";
}

TEST(LogStream, AFullSocketCostsRecordsAndSaysHowMany) {
  std::array<int, 2> ends;
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  writes_to_a_stalled_reader(reader, writer);
}

TEST(LogStream, AClosedReaderIsNoReasonToDie) {
  std::array<int, 2> ends;
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  Fd writer(ends[1]);
  ::close(ends[0]);
  ::signal(SIGPIPE, SIG_IGN);
  LogStream stream(writer.get());
  stream.write("nobody");
  ::signal(SIGPIPE, SIG_DFL);
}

}  // namespace
}  // namespace crosvm::log
