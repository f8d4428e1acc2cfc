#include "vhost/vhost_user_channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <thread>

namespace crosvm {
namespace {

using namespace std::chrono_literals;

struct Ends {
  Fd raw;
  VhostUserChannel channel;
};

Ends make_ends() {
  std::array<int, 2> pair{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  return {Fd(pair[0]), VhostUserChannel(Fd(pair[1]))};
}

std::vector<std::byte> wire(uint32_t request, uint32_t flags,
                            const std::vector<std::byte>& payload) {
  const VhostUserHeader header{request, flags, static_cast<uint32_t>(payload.size())};
  std::vector<std::byte> bytes(sizeof(header) + payload.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::ranges::copy(payload, bytes.begin() + sizeof(header));
  return bytes;
}

void send_raw(const Fd& to, std::span<const std::byte> bytes, size_t fds = 0) {
  std::vector<std::byte> control(CMSG_SPACE(sizeof(int) * fds));
  iovec vector{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (fds > 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * fds);
    for (size_t i = 0; i < fds; ++i) {
      const int raw = to.get();
      std::memcpy(CMSG_DATA(part) + i * sizeof(int), &raw, sizeof(int));
    }
  }
  ASSERT_EQ(::sendmsg(to.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}

int next_descriptor() { return Fd(::dup(0)).get(); }

TEST(VhostUserChannel, SendsAndReceivesWithDescriptors) {
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  VhostUserChannel one{Fd(pair[0])};
  VhostUserChannel two{Fd(pair[1])};
  auto message = vhost_user_message(VHOST_USER_SET_VRING_KICK, uint64_t{3});
  message.flags = kVhostUserNeedReply;
  message.fds.push_back(make_eventfd().value());
  ASSERT_TRUE(one.send(std::move(message)));
  ASSERT_TRUE(one.send(vhost_user_message(VHOST_USER_GET_FEATURES)));
  auto got = two.receive();
  ASSERT_TRUE(got && *got);
  EXPECT_EQ((*got)->request, VHOST_USER_SET_VRING_KICK);
  EXPECT_TRUE((*got)->needs_reply());
  EXPECT_FALSE((*got)->is_reply());
  EXPECT_EQ((*got)->payload_as<uint64_t>(), 3u);
  EXPECT_FALSE((*got)->payload_as<uint32_t>());
  ASSERT_EQ((*got)->fds.size(), 1u);
  EXPECT_NE(::fcntl((*got)->fds[0].get(), F_GETFD) & FD_CLOEXEC, 0);
  signal_eventfd((*got)->fds[0]);
  EXPECT_EQ(drain_eventfd((*got)->fds[0]), 1u);
  got = two.receive();
  ASSERT_TRUE(got && *got);
  EXPECT_EQ((*got)->request, VHOST_USER_GET_FEATURES);
  EXPECT_TRUE((*got)->fds.empty());
  got = two.receive();
  ASSERT_TRUE(got);
  EXPECT_FALSE(*got);
}

TEST(VhostUserChannel, TakesAMessageByteByByte) {
  Ends ends = make_ends();
  const auto bytes = wire(7, 1, {std::byte{1}, std::byte{2}, std::byte{3}});
  for (size_t i = 0; i < bytes.size(); ++i) {
    // A descriptor with every third byte: all belong to this message.
    send_raw(ends.raw, std::span(bytes).subspan(i, 1), i % 3 == 0 ? 1 : 0);
    const auto got = ends.channel.receive();
    ASSERT_TRUE(got);
    ASSERT_EQ(got->has_value(), i + 1 == bytes.size());
    if (*got) {
      EXPECT_EQ((*got)->payload.size(), 3u);
      EXPECT_EQ((*got)->fds.size(), 5u);
    }
  }
}

TEST(VhostUserChannel, TwoMessagesInOnePieceKeepTheirDescriptors) {
  Ends ends = make_ends();
  auto bytes = wire(1, 1, {});
  const auto second = wire(2, 1, {std::byte{9}});
  bytes.insert(bytes.end(), second.begin(), second.end());
  send_raw(ends.raw, bytes, 2);
  auto got = ends.channel.receive();
  ASSERT_TRUE(got && *got);
  EXPECT_EQ((*got)->fds.size(), 2u);
  got = ends.channel.receive();
  ASSERT_TRUE(got && *got);
  EXPECT_EQ((*got)->request, 2u);
  EXPECT_TRUE((*got)->fds.empty());
}

TEST(VhostUserChannel, EndsAreToldApart) {
  const auto bytes = wire(1, 1, {std::byte{1}, std::byte{2}});
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    Ends ends = make_ends();
    if (cut > 0) send_raw(ends.raw, std::span(bytes).first(cut));
    ends.raw = {};
    auto got = ends.channel.receive();
    if (cut == bytes.size()) {
      ASSERT_TRUE(got && *got);
      got = ends.channel.receive();
    }
    ASSERT_FALSE(got);
    const bool boundary = cut == 0 || cut == bytes.size();
    EXPECT_EQ(got.error().code(),
              boundary ? std::errc::not_connected : std::errc::connection_aborted)
        << cut;
  }
}

TEST(VhostUserChannel, RefusesOtherVersionsAndSizes) {
  for (const uint32_t flags : {0u, 2u, 3u, 0xfffffffcu}) {
    Ends ends = make_ends();
    send_raw(ends.raw, wire(1, flags, {}));
    const auto got = ends.channel.receive();
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code(), std::errc::protocol_not_supported);
  }
  for (const uint32_t size : {kVhostUserMaxPayload + 1, UINT32_MAX}) {
    Ends ends = make_ends();
    const VhostUserHeader header{1, 1, size};
    send_raw(ends.raw, std::as_bytes(std::span(&header, 1)));
    const auto got = ends.channel.receive();
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code(), std::errc::message_size);
  }
  Ends ends = make_ends();
  send_raw(ends.raw, wire(1, 1, std::vector<std::byte>(kVhostUserMaxPayload)));
  EXPECT_TRUE(ends.channel.receive().value().has_value());
}

TEST(VhostUserChannel, SurplusDescriptorsAreClosed) {
  const int before = next_descriptor();
  for (const size_t count : {kVhostUserMaxFds + 1, size_t{253}}) {
    {
      Ends ends = make_ends();
      send_raw(ends.raw, wire(1, 1, {}), count);
      const auto got = ends.channel.receive();
      ASSERT_FALSE(got);
      EXPECT_EQ(got.error().code(), std::errc::argument_list_too_long);
    }
    EXPECT_EQ(next_descriptor(), before);
  }
  Ends ends = make_ends();
  const auto bytes = wire(1, 1, {std::byte{0}});
  send_raw(ends.raw, std::span(bytes).first(5), 5);
  send_raw(ends.raw, std::span(bytes).subspan(5), 4);  // nine in two pieces
  const auto got = ends.channel.receive();
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code(), std::errc::argument_list_too_long);
}

TEST(VhostUserChannel, LostDescriptorsAreAnError) {
  Ends ends = make_ends();
  send_raw(ends.raw, wire(1, 1, {}), 8);
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit low = limit;
  low.rlim_cur = static_cast<rlim_t>(next_descriptor()) + 3;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  const auto got = ends.channel.receive();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code(), std::errc::too_many_files_open);
}

TEST(VhostUserChannel, QueuesForASlowPeerUpToABound) {
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  VhostUserChannel one{Fd(pair[0])};
  VhostUserChannel two{Fd(pair[1])};
  uint32_t sent = 0;
  Result<void> result;
  do {
    VhostUserMessage message = vhost_user_message(sent + 1);
    message.payload.resize(1000);
    message.fds.push_back(make_eventfd().value());
    result = one.send(std::move(message));
    ++sent;
    ASSERT_LT(sent, 10'000u);
  } while (!one.wants_write());
  ASSERT_TRUE(result);
  // What is queued arrives in order, with its descriptors, once the peer reads.
  uint32_t received = 0;
  while (received < sent) {
    ASSERT_TRUE(one.flush());
    auto got = two.receive();
    ASSERT_TRUE(got);
    if (!*got) continue;
    ++received;
    EXPECT_EQ((*got)->request, received);
    EXPECT_EQ((*got)->payload.size(), 1000u);
    EXPECT_EQ((*got)->fds.size(), 1u);
  }
  EXPECT_FALSE(one.wants_write());
  for (sent = 0; result && sent < 10'000; ++sent) {
    VhostUserMessage message = vhost_user_message(1);
    message.payload.resize(1000);
    result = one.send(std::move(message));
  }
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), std::errc::no_buffer_space);
}

TEST(VhostUserChannel, SendingToNobodyIsAnErrorNotASignal) {
  Ends ends = make_ends();
  ends.raw = {};
  const auto sent = ends.channel.send(vhost_user_message(1));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code(), std::errc::broken_pipe);
}

TEST(VhostUserChannel, CallWaitsForItsAnswer) {
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  VhostUserChannel one{Fd(pair[0])};
  VhostUserChannel two{Fd(pair[1])};
  std::thread peer([&] {
    auto request = two.wait_message(VhostUserChannel::Clock::now() + 20s);
    ASSERT_TRUE(request);
    auto answer = vhost_user_message(request->request, uint64_t{5});
    answer.flags = kVhostUserReply;
    ASSERT_TRUE(two.send(std::move(answer)));
  });
  const auto answer =
      one.call(vhost_user_message(VHOST_USER_GET_FEATURES), VhostUserChannel::Clock::now() + 20s);
  peer.join();
  ASSERT_TRUE(answer) << answer.error().what();
  EXPECT_EQ(answer->payload_as<uint64_t>(), 5u);

  const auto late = one.call(vhost_user_message(15), VhostUserChannel::Clock::now() + 20ms);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), std::errc::timed_out);
  EXPECT_NE(late.error().what().find("request 15"), std::string::npos);

  ASSERT_TRUE(two.send(vhost_user_message(15)));  // not marked as an answer
  const auto wrong = one.call(vhost_user_message(15), VhostUserChannel::Clock::now() + 20s);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code(), std::errc::bad_message);
}

}  // namespace
}  // namespace crosvm
