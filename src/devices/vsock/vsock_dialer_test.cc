#include "devices/vsock/vsock_dialer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include "base/socket_pair.h"

namespace crosvm {
namespace {

/// While it lives, this process opens no more files.
class NoMoreFiles {
 public:
  NoMoreFiles() {
    EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0);
    const Fd next(::dup(0));
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(next.get());
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
  ~NoMoreFiles() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

class VsockDialerTest : public testing::Test {
 protected:
  VsockDialerTest() {
    auto pair = make_socket_pair(SOCK_SEQPACKET, "a test");
    CHECK(pair.has_value());
    CHECK(::fcntl(pair->theirs.get(), F_SETFL, O_NONBLOCK) == 0);
    host_ = PacketSocket(std::move(pair->ours), kVsockDialPackets);
    loop_ = *EventLoop::create();
    auto dialer = VsockDialer::create(
        *loop_, std::move(pair->theirs),
        [this](uint64_t number, Result<Fd> fd) { answers_.emplace(number, std::move(fd)); });
    CHECK(dialer.has_value());
    dialer_ = *std::move(dialer);
  }
  /// The host's answer to the next question: any socket.
  void answer() {
    auto packet = host_.receive();
    ASSERT_TRUE(packet && *packet);
    VsockDial dial;
    ASSERT_EQ((*packet)->text.size(), sizeof(dial));
    std::memcpy(&dial, (*packet)->text.data(), sizeof(dial));
    const VsockDialed dialed{.number = dial.number};
    Packet answer{.text = {reinterpret_cast<const char*>(&dialed), sizeof(dialed)}, .fds = {}};
    answer.fds.emplace_back(::dup(0));
    ASSERT_TRUE(host_.send(answer));
  }
  void run() { ASSERT_TRUE(loop_->run_once(std::chrono::milliseconds(0))); }

  PacketSocket host_{Fd(), {}};
  std::unique_ptr<EventLoop> loop_;
  std::map<uint64_t, Result<Fd>> answers_;
  std::unique_ptr<VsockDialer> dialer_;
};

TEST_F(VsockDialerTest, ASocketThatCannotBeTakenFailsAloneAndNotTheNext) {
  dialer_->dial(10, 0);
  dialer_->dial(7, 0);
  answer();
  answer();
  {
    const NoMoreFiles limit;
    run();
  }
  ASSERT_EQ(answers_.size(), 2u);
  for (const auto& [number, socket] : answers_) {
    ASSERT_FALSE(socket) << number;
    EXPECT_EQ(socket.error().code(), std::errc::too_many_files_open);
  }
  dialer_->dial(11, 0);
  answer();
  run();
  ASSERT_TRUE(answers_.contains(11));
  EXPECT_TRUE(answers_.at(11)) << answers_.at(11).error().what();
}

TEST_F(VsockDialerTest, AnswersThatNobodyAskedForEndIt) {
  dialer_->dial(1, 0);
  const VsockDialed dialed{.number = 2};
  ASSERT_TRUE(
      host_.send({.text = {reinterpret_cast<const char*>(&dialed), sizeof(dialed)}, .fds = {}}));
  run();
  ASSERT_TRUE(answers_.contains(1));
  ASSERT_FALSE(answers_.at(1));
  EXPECT_EQ(answers_.at(1).error().code(), std::errc::not_connected);
}

}  // namespace
}  // namespace crosvm
