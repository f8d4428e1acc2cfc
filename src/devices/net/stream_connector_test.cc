#include "devices/net/stream_connector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <optional>

#include "base/socket_pair.h"

namespace crosvm {
namespace {

Fd listen_at(const std::string& path) {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  std::strcpy(at.sun_path, path.c_str());
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)), 0);
  EXPECT_EQ(::listen(socket.get(), 1), 0);
  return socket;
}

TEST(StreamConnectorTest, ConnectsWhenItIsAskedAndAsSoonAsSomebodyListens) {
  std::string folder = testing::TempDir() + "stream.XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/passt";
  auto loop = *EventLoop::create();
  FdPair pair = *make_socket_pair(SOCK_SEQPACKET, "a test");
  auto connector = *StreamConnector::create(*loop, path, std::move(pair.ours));
  std::optional<Fd> got;
  int times = 0;
  auto asker = *StreamAsker::create(*loop, std::move(pair.theirs), [&](Fd socket) {
    got = std::move(socket);
    ++times;
  });
  const auto wait = [&](std::chrono::milliseconds time) {
    const auto end = EventLoop::Clock::now() + time;
    while (!got && EventLoop::Clock::now() < end) {
      ASSERT_TRUE(loop->run_once(std::chrono::milliseconds(10)));
    }
  };
  asker->ask();
  asker->ask();
  wait(2 * StreamDialer::kPause);
  EXPECT_FALSE(got) << "nobody is there";
  {
    const Fd listener = listen_at(path);
    wait(std::chrono::seconds(20));
    ASSERT_TRUE(got);
    const Fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(accepted);
    ASSERT_EQ(::send(accepted.get(), "hello", 5, 0), 5);
    char data[5];
    EXPECT_EQ(::recv(got->get(), data, sizeof(data), 0), 5);
  }
  EXPECT_EQ(times, 1);
  ::unlink(path.c_str());
  got.reset();
  wait(2 * StreamDialer::kPause);
  EXPECT_FALSE(got) << "unasked";
  const Fd again = listen_at(path);
  asker->ask();
  wait(std::chrono::seconds(20));
  EXPECT_TRUE(got);
  ::unlink(path.c_str());
  ::rmdir(folder.c_str());
}

TEST(StreamConnectorTest, NobodyThereIsAnErrorThatSaysWhatHelps) {
  auto socket = connect_stream("/tmp/there-is-no-such-passt");
  ASSERT_FALSE(socket.has_value());
  EXPECT_EQ(
      socket.error().what(),
      "connecting to /tmp/there-is-no-such-passt: No such file or directory; start passt there "
      "first: passt --socket /tmp/there-is-no-such-passt");
  for (const char* other : {"/dev/null", "/tmp", "/dev/null/socket"}) {
    socket = connect_stream(other);
    ASSERT_FALSE(socket.has_value());
    EXPECT_THAT(socket.error().what(), testing::HasSubstr("it is no stream socket"));
  }
}

}  // namespace
}  // namespace crosvm
