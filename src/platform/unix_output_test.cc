#include "platform/unix_output.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

namespace crosvm {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class UnixOutputTest : public ::testing::Test {
 protected:
  UnixOutputTest() {
    char name[] = "/tmp/unix_output_test.XXXXXX";
    CHECK(::mkdtemp(name) != nullptr);
    directory_ = name;
    path_ = directory_ + "/log.sock";
  }
  ~UnixOutputTest() override { std::filesystem::remove_all(directory_); }

  /// A bound socket at `path`, which may be long.
  Fd bind_socket(const std::string& path, int type) {
    const std::filesystem::path whole(path);
    Fd parent(::open(whole.parent_path().c_str(), O_PATH | O_CLOEXEC));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string text =
        "/proc/self/fd/" + std::to_string(parent.get()) + "/" + whole.filename().string();
    text.copy(address.sun_path, sizeof(address.sun_path) - 1);
    Fd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    CHECK(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    if (type == SOCK_STREAM) CHECK(::listen(socket.get(), 1) == 0);
    return socket;
  }

  std::optional<std::string> datagram(const Fd& socket) {
    char text[4096];
    const ssize_t got = ::recv(socket.get(), text, sizeof(text), MSG_DONTWAIT);
    if (got < 0) return std::nullopt;
    return std::string(text, static_cast<size_t>(got));
  }

  void send(SerialOutput& output, std::string_view text) {
    for (char c : text) {  // as a UART does
      auto byte = static_cast<std::byte>(c);
      ASSERT_TRUE(output.write(std::span(&byte, 1)));
    }
  }

  std::string directory_;
  std::string path_;
  std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
};

TEST_F(UnixOutputTest, ALineIsADatagramWithoutItsEnd) {
  Fd server = bind_socket(path_, SOCK_DGRAM);
  auto output = *make_unix_datagram_output(*loop_, path_);
  send(*output, "one\ntwo\r\n\nthr\ree\n");
  EXPECT_EQ(datagram(server), "one");
  EXPECT_EQ(datagram(server), "two");
  EXPECT_EQ(datagram(server), "");
  EXPECT_EQ(datagram(server), "thr\ree");
  EXPECT_EQ(datagram(server), std::nullopt);
}

TEST_F(UnixOutputTest, APartialLineIsHeldUntilItsEnd) {
  Fd server = bind_socket(path_, SOCK_DGRAM);
  auto output = *make_unix_datagram_output(*loop_, path_);
  send(*output, "partial");
  EXPECT_EQ(datagram(server), std::nullopt);
  send(*output, " line\n");
  EXPECT_EQ(datagram(server), "partial line");
}

TEST_F(UnixOutputTest, A1024ByteChunkGoesWithoutNewline) {
  Fd server = bind_socket(path_, SOCK_DGRAM);
  auto output = *make_unix_datagram_output(*loop_, path_);
  send(*output, std::string(1023, 'a'));
  EXPECT_EQ(datagram(server), std::nullopt);
  send(*output, "abc\n");
  EXPECT_EQ(datagram(server), std::string(1024, 'a'));
  EXPECT_EQ(datagram(server), "bc");
}

TEST_F(UnixOutputTest, LinesBeforeTheReceiverExistsAreKept) {
  auto output = *make_unix_datagram_output(*loop_, path_);  // nothing there yet: no wait, no error
  send(*output, "early\n");
  ASSERT_TRUE(loop_->run_once(milliseconds(30)));
  Fd server = bind_socket(path_, SOCK_DGRAM);
  send(*output, "bird\n");
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(loop_->run_once(milliseconds(10)));
  EXPECT_EQ(datagram(server), "early");
  EXPECT_EQ(datagram(server), "bird");
  send(*output, "worm\n");
  EXPECT_EQ(datagram(server), "worm");
}

TEST_F(UnixOutputTest, AStaleSocketIsTriedAgainToo) {
  {
    Fd dead = bind_socket(path_, SOCK_DGRAM);
  }
  auto output = *make_unix_datagram_output(*loop_, path_);
  send(*output, "hello\n");
  std::filesystem::remove(path_);
  Fd server = bind_socket(path_, SOCK_DGRAM);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(loop_->run_once(milliseconds(10)));
  EXPECT_EQ(datagram(server), "hello");
}

TEST_F(UnixOutputTest, WhatIsKeptWhileWaitingIsBounded) {
  auto output = *make_unix_datagram_output(*loop_, path_);
  for (int i = 0; i < 1000; ++i) send(*output, std::string(999, 'k') + "\n");
  Fd server = bind_socket(path_, SOCK_DGRAM);
  size_t bytes = 0;
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(loop_->run_once(milliseconds(10)));
    while (auto line = datagram(server)) bytes += line->size();
  }
  EXPECT_GT(bytes, 60u * 1024);  // also more than the receiver's own queue takes at once
  EXPECT_LE(bytes, 64u * 1024);
}

TEST_F(UnixOutputTest, AReceiverThatNeverReadsCostsLinesNotTime) {
  Fd server = bind_socket(path_, SOCK_DGRAM);
  auto output = *make_unix_datagram_output(*loop_, path_);
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 2000; ++i) send(*output, "line\n");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  while (datagram(server)) {
  }
  send(*output, "again\n");
  EXPECT_EQ(datagram(server), "again");
}

TEST_F(UnixOutputTest, ARestartedReceiverIsFound) {
  Fd server = bind_socket(path_, SOCK_DGRAM);
  auto output = *make_unix_datagram_output(*loop_, path_);
  send(*output, "one\n");
  server = Fd();
  send(*output, "lost\n");
  std::filesystem::remove(path_);
  server = bind_socket(path_, SOCK_DGRAM);
  send(*output, "two\n");
  EXPECT_EQ(datagram(server), "two");
}

TEST_F(UnixOutputTest, AnErrorThatWaitingCannotCureIsReported) {
  Fd server = bind_socket(path_, SOCK_STREAM);
  auto output = make_unix_datagram_output(*loop_, path_);
  ASSERT_FALSE(output);
  EXPECT_THAT(output.error().what(), HasSubstr(path_));
}

TEST_F(UnixOutputTest, ALongPathIsReachedThroughItsDirectory) {
  std::string deep = directory_;
  for (int i = 0; i < 3; ++i) deep += "/" + std::string(50, 'd');
  std::filesystem::create_directories(deep);
  const std::string path = deep + "/log.sock";
  ASSERT_GE(path.size(), 108u);
  Fd server = bind_socket(path, SOCK_DGRAM);
  auto output = *make_unix_datagram_output(*loop_, path);
  send(*output, "far\n");
  EXPECT_EQ(datagram(server), "far");
}

TEST_F(UnixOutputTest, APathTooLongEvenSoIsInvalid) {
  const std::string path = directory_ + "/" + std::string(200, 'n');
  auto output = make_unix_datagram_output(*loop_, path);
  ASSERT_FALSE(output);
  EXPECT_EQ(output.error().code(), std::errc::invalid_argument);
  EXPECT_FALSE(make_unix_datagram_output(*loop_, ""));
}

TEST_F(UnixOutputTest, StreamConnectsOnce) {
  auto missing = connect_unix_stream(path_);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), std::errc::no_such_file_or_directory);
  EXPECT_THAT(missing.error().what(), HasSubstr(path_));
  Fd server = bind_socket(path_, SOCK_STREAM);
  auto connected = connect_unix_stream(path_);
  ASSERT_TRUE(connected);
  EXPECT_NE(::fcntl(connected->get(), F_GETFL) & O_NONBLOCK, 0);
}

}  // namespace
}  // namespace crosvm
