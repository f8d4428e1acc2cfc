#include "devices/net/stream_port.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "base/socket_pair.h"
#include "memory/guest_memory.h"

namespace crosvm {
namespace {

using Frame = std::vector<std::byte>;

Frame frame_of(size_t bytes, int seed) {
  Frame frame(bytes);
  for (size_t i = 0; i < bytes; ++i) frame[i] = std::byte(static_cast<uint8_t>(i * 7 + seed));
  return frame;
}
Frame with_length(const Frame& frame) {
  Frame all = {std::byte(0), std::byte(frame.size() >> 16 & 0xff),
               std::byte(frame.size() >> 8 & 0xff), std::byte(frame.size() & 0xff)};
  all.insert(all.end(), frame.begin(), frame.end());
  return all;
}

class StreamPortTest : public testing::Test {
 protected:
  StreamPortTest() {
    FdPair pair = *make_socket_pair(SOCK_STREAM, "a test");
    peer_ = std::move(pair.theirs);
    port_ = std::make_unique<StreamPort>(*loop_, std::move(pair.ours), "passt");
    port_->on_lost([this] { ++lost_; });
    port_->begin({.receivable = [this] { receive(); },
                  .sendable = [this] { ++sendable_; },
                  .link_changed = [this](bool up) { links_.push_back(up); }});
    port_->listen(true);
  }
  static GuestMemory make_memory() {
    const RamRange ram{GuestAddress(0), 1 << 20};
    return *GuestMemory::create(std::span(&ram, 1), {});
  }
  void receive() {
    const GuestSlice room = *memory_.slice(GuestAddress(0), kNetHeaderBytes + kMostPacketBytes);
    const auto got = port_->receive(ChainBuffers({&room, 1}));
    if (!got) return;
    Frame frame(*got - kNetHeaderBytes);
    CHECK(room.read_bytes(kNetHeaderBytes, frame));
    received_.push_back(std::move(frame));
  }
  NetPort::Sent send(const Frame& frame) {
    const GuestSlice slice = *memory_.slice(GuestAddress(0x80000), frame.size());
    CHECK(slice.write_bytes(0, frame));
    return port_->send({}, ChainBuffers({&slice, 1}));
  }
  void peer_sends(const Frame& bytes) {
    ASSERT_EQ(::send(peer_.get(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
  }
  Frame peer_reads() {
    Frame all(1 << 20);
    const ssize_t got = ::recv(peer_.get(), all.data(), all.size(), MSG_DONTWAIT);
    all.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return all;
  }
  void turn(int times = 10) {
    for (int i = 0; i < times; ++i) CHECK(loop_->run_once(std::chrono::milliseconds(1)));
  }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
  GuestMemory memory_ = make_memory();
  Fd peer_;
  std::unique_ptr<StreamPort> port_;
  std::vector<Frame> received_;
  std::vector<bool> links_;
  int sendable_ = 0;
  int lost_ = 0;
};

TEST_F(StreamPortTest, FramesGoBothWaysBehindTheirLengths) {
  EXPECT_EQ(send(frame_of(60, 1)), NetPort::Sent::kDone);
  EXPECT_EQ(peer_reads(), with_length(frame_of(60, 1)));
  Frame three = with_length(frame_of(14, 2));
  for (const Frame& more :
       {with_length(frame_of(kMostPacketBytes, 3)), with_length(frame_of(60, 4))}) {
    three.insert(three.end(), more.begin(), more.end());
  }
  peer_sends(three);
  turn();
  EXPECT_EQ(received_,
            (std::vector<Frame>{frame_of(14, 2), frame_of(kMostPacketBytes, 3), frame_of(60, 4)}));
}

TEST_F(StreamPortTest, AFrameMayComeInPieces) {
  const Frame whole = with_length(frame_of(100, 5));
  for (std::byte each : whole) {
    peer_sends({each});
    turn(1);
  }
  turn();
  EXPECT_EQ(received_, std::vector<Frame>{frame_of(100, 5)});
}

TEST_F(StreamPortTest, NothingIsReceivedUnasked) {
  port_->listen(false);
  peer_sends(with_length(frame_of(60, 6)));
  turn();
  EXPECT_TRUE(received_.empty());
  port_->listen(true);
  turn();
  EXPECT_EQ(received_.size(), 1U);
}

TEST_F(StreamPortTest, APeerThatDoesNotReadIsWaitedFor) {
  size_t sent = 0;
  while (send(frame_of(1500, static_cast<int>(sent))) == NetPort::Sent::kDone)
    ASSERT_LT(++sent, 100000U);
  Frame all;
  for (int i = 0; i < 100000 && (sendable_ == 0 || all.size() < sent * 1504); ++i) {
    const Frame more = peer_reads();
    all.insert(all.end(), more.begin(), more.end());
    turn(1);
  }
  EXPECT_EQ(sendable_, 1);
  ASSERT_EQ(all.size(), sent * 1504);
  for (size_t i = 0; i < sent; ++i) {
    const Frame expected = with_length(frame_of(1500, static_cast<int>(i)));
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(),
                           all.begin() + static_cast<ptrdiff_t>(1504 * i)))
        << i;
  }
}

TEST_F(StreamPortTest, APeerThatClosesTakesTheLinkDownAndAnotherBringsItBack) {
  for (const bool listening : {true, false}) {
    SCOPED_TRACE(listening);
    links_.clear();
    lost_ = 0;
    port_->listen(listening);
    peer_sends({std::byte(0), std::byte(0)});  // half a frame
    peer_ = {};
    turn();
    EXPECT_EQ(links_, std::vector<bool>{false});
    EXPECT_EQ(lost_, 1);
    EXPECT_FALSE(port_->connected());
    EXPECT_EQ(send(frame_of(60, 1)), NetPort::Sent::kDone) << "lost, as without a cable";
    FdPair pair = *make_socket_pair(SOCK_STREAM, "a test");
    peer_ = std::move(pair.theirs);
    port_->connect(std::move(pair.ours));
    EXPECT_EQ(links_, (std::vector<bool>{false, true}));
    EXPECT_EQ(send(frame_of(60, 2)), NetPort::Sent::kDone);
    EXPECT_EQ(peer_reads(), with_length(frame_of(60, 2)));
    received_.clear();
    port_->listen(true);
    peer_sends(with_length(frame_of(60, 3)));
    turn();
    EXPECT_EQ(received_, std::vector<Frame>{frame_of(60, 3)});
  }
}

TEST_F(StreamPortTest, WhatIsNoFrameEndsTheConnection) {
  for (const uint32_t length : {0U, 13U, uint32_t{kMostPacketBytes} + 1, 0xffffffffU}) {
    SCOPED_TRACE(length);
    links_.clear();
    Frame bytes;
    for (int shift : {24, 16, 8, 0})
      bytes.push_back(std::byte(static_cast<uint8_t>(length >> shift)));
    peer_sends(bytes);
    turn();
    EXPECT_EQ(links_, std::vector<bool>{false});
    FdPair pair = *make_socket_pair(SOCK_STREAM, "a test");
    peer_ = std::move(pair.theirs);
    port_->connect(std::move(pair.ours));
  }
  EXPECT_TRUE(received_.empty());
}

}  // namespace
}  // namespace crosvm
