#include "devices/vsock/vsock_outbox.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <random>
#include <string>
#include <vector>

#include "base/socket_pair.h"

namespace crosvm {
namespace {

constexpr uint32_t kRoom = 256 << 10;

/// Buffers of a chain, with a header's worth of bytes before the payload.
class TestChain {
 public:
  TestChain(std::string payload, size_t slice) : bytes_(kBefore + payload) {
    for (size_t at = 0; at < bytes_.size(); at += slice) {
      const auto part = std::span(bytes_).subspan(at, std::min(slice, bytes_.size() - at));
      slices_.push_back(GuestSlice::over(std::as_writable_bytes(part)));
    }
  }
  ChainBuffers buffers() const { return ChainBuffers(slices_); }
  VsockOutbox::Piece all(bool ends_message = false) const {
    return {.offset = kBefore.size(),
            .length = static_cast<uint32_t>(bytes_.size() - kBefore.size()),
            .ends_message = ends_message};
  }

 private:
  static inline const std::string kBefore = "before";
  std::string bytes_;
  std::vector<GuestSlice> slices_;
};

std::string read_some(const Fd& fd) {
  std::string text(size_t{1} << 20, '\0');
  const ssize_t got = ::recv(fd.get(), text.data(), text.size(), MSG_DONTWAIT);
  text.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return text;
}

TEST(VsockOutboxTest, AStreamComesInOrderHoweverItIsCut) {
  const FdPair pair = *make_socket_pair(SOCK_STREAM, "a test");
  VsockOutbox outbox(false, kRoom);
  std::mt19937 random(1);
  std::string sent;
  std::string came;
  uint64_t left = 0;  // as the outbox says
  while (sent.size() < (4 << 20)) {
    std::string part(random() % 5000, '\0');
    for (char& byte : part) byte = static_cast<char>(random());
    if (sent.size() - left + part.size() <= kRoom) {
      const TestChain chain(part, 1 + random() % 60);
      left += *outbox.put(pair.ours, chain.buffers(), chain.all());
      sent += part;
    } else {
      came += read_some(pair.theirs);
      left += *outbox.flush(pair.ours);
    }
  }
  while (!outbox.empty()) {
    came += read_some(pair.theirs);
    left += *outbox.flush(pair.ours);
  }
  for (std::string part = read_some(pair.theirs); !part.empty(); part = read_some(pair.theirs)) {
    came += part;
  }
  EXPECT_EQ(left, sent.size());
  EXPECT_TRUE(came == sent);
}

TEST(VsockOutboxTest, MessagesOfAllSizesWaitInOrder) {
  const FdPair pair = *make_socket_pair(SOCK_SEQPACKET, "a test");
  VsockOutbox outbox(true, kRoom);
  std::vector<std::string> messages;
  uint64_t bytes = 0;
  uint64_t left = 0;
  for (const size_t size : {1, 0, 63, 64, 65, 5000, 100'000, 0, 100'000, 2}) {
    messages.emplace_back(size, static_cast<char>('a' + messages.size()));
    const TestChain chain(messages.back(), 4096);
    auto put = outbox.put(pair.ours, chain.buffers(), chain.all(true));
    ASSERT_TRUE(put.has_value());
    left += *put;
    bytes += size;
  }
  EXPECT_FALSE(outbox.empty());  // else nothing had to wait
  for (const std::string& message : messages) {
    EXPECT_TRUE(read_some(pair.theirs) == message) << message.size();
    left += *outbox.flush(pair.ours);
  }
  EXPECT_TRUE(outbox.empty());
  EXPECT_EQ(left, bytes);
}

TEST(VsockOutboxTest, AMessageGoesWhenAllOfItIsThere) {
  const FdPair pair = *make_socket_pair(SOCK_SEQPACKET, "a test");
  VsockOutbox outbox(true, kRoom);
  const TestChain first("one ", 3);
  const TestChain second("message", 3);
  EXPECT_EQ(*outbox.put(pair.ours, first.buffers(), first.all()), 0u);
  EXPECT_EQ(read_some(pair.theirs), "");
  EXPECT_EQ(*outbox.put(pair.ours, second.buffers(), second.all(true)), 11u);
  EXPECT_EQ(read_some(pair.theirs), "one message");
}

TEST(VsockOutboxTest, MessagesWithoutContentsAreBounded) {
  const FdPair pair = *make_socket_pair(SOCK_SEQPACKET, "a test");
  VsockOutbox outbox(true, kRoom);
  const TestChain empty("", 8);
  size_t taken = 0;
  while (taken <= 4 * kRoom && outbox.put(pair.ours, empty.buffers(), empty.all(true))) ++taken;
  EXPECT_GE(taken, kRoom);  // as many as a guest may send with a byte in each
  EXPECT_LE(taken, 3 * kRoom);
  EXPECT_EQ(outbox.put(pair.ours, empty.buffers(), empty.all(true)).error().code(),
            std::errc::no_buffer_space);
}

TEST(VsockOutboxTest, APeerThatHasGone) {
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    FdPair pair = *make_socket_pair(type, "a test");
    pair.theirs = {};
    VsockOutbox outbox(type == SOCK_SEQPACKET, kRoom);
    const TestChain chain("x", 8);
    const auto put = outbox.put(pair.ours, chain.buffers(), chain.all(true));
    ASSERT_FALSE(put.has_value());
    EXPECT_EQ(put.error().code(), std::errc::broken_pipe);
  }
}

}  // namespace
}  // namespace crosvm
