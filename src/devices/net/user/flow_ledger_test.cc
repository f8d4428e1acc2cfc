#include "devices/net/user/flow_ledger.h"

#include <gtest/gtest.h>

#include "devices/net/user/rig/test_frames.h"

namespace crosvm {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using Socket = FlowLedger::Socket;
using Ends = FlowLedger::Ends;

const IpAddress kGuest = ip("10.0.2.15");
const IpAddress kServer = ip("192.0.2.1");
constexpr uint8_t kTestFin = 1;
const FlowLedger::Clock::time_point kStart = FlowLedger::Clock::now();

Ends ends_of(uint16_t guest_port, uint16_t port = 80) {
  return {{kGuest, guest_port}, {kServer, port}};
}

/// A ledger, and what the two sides of its connections say.
struct Talk {
  FlowLedger ledger;

  bool guest(uint16_t port, const TcpSegment& segment, seconds when = seconds(0)) {
    const Bytes frame = tcp_frame(kGuest, port, kServer, 80, segment);
    return ledger.takes_segment(frame, std::get<IpFrame>(read_guest_frame(frame)), kStart + when);
  }
  void library(uint16_t port, const TcpSegment& segment) {
    const Bytes frame = tcp_frame(kServer, 80, kGuest, port, segment);
    ledger.note_segment(frame, std::get<IpFrame>(read_guest_frame(frame)));
  }
  /// A connection of the guest, which begins with number 1000, and the library with 5000.
  void connect(int fd, uint16_t port, seconds when = seconds(0)) {
    ledger.opened_tcp(fd, ends_of(port), std::nullopt, kStart + when);
    library(port, {.sequence = 5000, .acknowledged = 1001, .flags = kTestSyn | kTestAck});
    guest(port, {.sequence = 1001, .acknowledged = 5001, .flags = kTestAck}, when);
  }
  bool data(uint16_t port, uint32_t sequence, size_t bytes = 1) {
    return guest(
        port,
        {.sequence = sequence, .acknowledged = 5001, .flags = kTestAck, .data = Bytes(bytes)});
  }
  void acknowledge(uint16_t port, uint32_t sequence) {
    library(port, {.sequence = 5001, .acknowledged = sequence, .flags = kTestAck});
  }
  int idlest(seconds when, std::optional<size_t> forward = std::nullopt) const {
    const auto idle = ledger.idlest(forward, 1, kStart + when);
    return idle.empty() ? -1 : idle[0];
  }
};

TEST(FlowLedgerTest, EachForwardedPortHasItsShare) {
  FlowLedger ledger({.tcp = 10, .inbound = 8, .per_forward = 5});
  int fd = 3;
  const auto open = [&](std::optional<size_t> forward) {
    ledger.opened_tcp(fd, ends_of(static_cast<uint16_t>(fd)), forward);
    ++fd;
  };
  for (int i = 0; i < 5; ++i) open(0);
  EXPECT_FALSE(ledger.admits_forward(0));
  EXPECT_TRUE(ledger.admits_forward(1));
  for (int i = 0; i < 3; ++i) open(1);
  EXPECT_FALSE(ledger.admits_forward(1)) << "of all that come in";
  EXPECT_FALSE(ledger.admits_forward(2));
  EXPECT_TRUE(ledger.admits_tcp()) << "the guest's own";
  open(std::nullopt);
  open(std::nullopt);
  EXPECT_FALSE(ledger.admits_tcp());
  ledger.closed(3);
  EXPECT_TRUE(ledger.admits_tcp());
  EXPECT_TRUE(ledger.admits_forward(0));
}

TEST(FlowLedgerTest, AConnectionThatIsInUseIsNotGivenUp) {
  Talk talk;
  talk.connect(3, 1000);
  talk.connect(4, 1001, seconds(1));
  EXPECT_EQ(talk.idlest(minutes(5) - seconds(1)), -1);
  EXPECT_EQ(talk.idlest(minutes(5) + seconds(2)), 3) << "the one that is silent longest";
  talk.guest(1000, {.sequence = 1001, .acknowledged = 5001, .flags = kTestAck}, minutes(4));
  EXPECT_EQ(talk.idlest(minutes(5) + seconds(2)), 4);
  // What the library sends again and again to a guest that is no more is no use.
  talk.library(1001, {.sequence = 5001, .acknowledged = 1001, .flags = kTestAck, .data = {1}});
  EXPECT_EQ(talk.idlest(minutes(5) + seconds(2)), 4);
}

TEST(FlowLedgerTest, ConnectionsThatAreHalfOpenGoFirst) {
  Talk talk;
  talk.connect(3, 1000);
  talk.connect(4, 1001, minutes(6));
  talk.guest(1001, {.sequence = 1001, .acknowledged = 5001, .flags = kTestAck | kTestFin},
             minutes(6));
  EXPECT_EQ(talk.idlest(minutes(6) + seconds(9)), 3);
  EXPECT_EQ(talk.idlest(minutes(6) + seconds(11)), 4) << "one side has said all";
  talk.ledger.opened_tcp(5, ends_of(1002), std::nullopt, kStart);
  talk.guest(1002, {}, minutes(6));
  EXPECT_EQ(talk.idlest(minutes(6)), 5) << "the guest asks, and nobody answers";
}

TEST(FlowLedgerTest, SeveralAreGivenUpInTheirOrder) {
  Talk talk;
  for (int i = 0; i < 4; ++i) {
    talk.connect(3 + i, static_cast<uint16_t>(1000 + i), seconds(10 - i));
  }
  EXPECT_EQ(talk.ledger.idlest(std::nullopt, 3, kStart + minutes(6)), (std::vector<int>{6, 5, 4}));
  EXPECT_EQ(talk.ledger.idlest(std::nullopt, 9, kStart + minutes(6)).size(), 4U);
}

TEST(FlowLedgerTest, AForwardedPortMakesRoomAmongItsOwn) {
  Talk talk{FlowLedger({.tcp = 10, .inbound = 4, .per_forward = 2})};
  talk.connect(3, 1000);
  const auto come = [&](int fd, size_t forward) {
    const auto port = static_cast<uint16_t>(1000 + fd);
    talk.ledger.opened_tcp(fd, ends_of(port), forward, kStart);
    talk.library(port, {.sequence = 5000});
  };
  talk.ledger.opened_tcp(9, ends_of(999), 0, kStart);  // its SYN cannot be sent yet
  come(5, 1);
  come(6, 1);
  come(7, 0);
  EXPECT_EQ(talk.idlest(minutes(1), 0), 7);
  const int other = talk.idlest(minutes(1), 1);
  EXPECT_TRUE(other == 5 || other == 6) << other;
  EXPECT_NE(talk.idlest(minutes(60), 2), 3)
      << "not the guest's own, as all of the others are taken";
}

TEST(FlowLedgerTest, SegmentsBehindAGapAreBounded) {
  Talk talk{FlowLedger({.early = 3, .all_early = 5})};
  talk.connect(3, 1000);
  talk.connect(4, 1001);
  for (uint32_t i = 0; i < 10; ++i) {
    EXPECT_TRUE(talk.data(1000, 1001 + i)) << "in order";
    talk.acknowledge(1000, 1002 + i);
  }
  for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(talk.data(1000, 1013 + 2 * i), i < 3) << i;
  EXPECT_TRUE(talk.data(1000, 1011)) << "what fills the gap passes";
  EXPECT_TRUE(talk.data(1000, 900)) << "and what is old";
  for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(talk.data(1001, 1013 + 2 * i), i < 2) << i;
  // All of the first is there, and no more is kept.
  talk.acknowledge(1000, 1018);
  for (uint32_t i = 0; i < 2; ++i) EXPECT_EQ(talk.data(1001, 1023 + 2 * i), i < 1) << i;
  talk.ledger.closed(4);
  for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(talk.data(1000, 1033 + 2 * i), i < 3) << i;
}

TEST(FlowLedgerTest, NumbersOfASequenceWrap) {
  Talk talk{FlowLedger({.early = 1})};
  talk.ledger.opened_tcp(3, ends_of(1000), std::nullopt, kStart);
  talk.library(1000, {.sequence = 5000, .acknowledged = 0xfffffff0, .flags = kTestSyn | kTestAck});
  EXPECT_TRUE(talk.data(1000, 0xfffffff0, 32));
  talk.acknowledge(1000, 0x10);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(talk.data(1000, 0x10 + i));
    talk.acknowledge(1000, 0x11 + i);
  }
}

TEST(FlowLedgerTest, TheGuestHearsFromThoseThatItHasSentTo) {
  FlowLedger ledger;
  ledger.opened_udp(3, {kGuest, 1000}, kStart);
  ledger.note_datagram(ends_of(1000), kStart);
  EXPECT_TRUE(ledger.hears(ends_of(1000), kStart + minutes(3)));
  EXPECT_FALSE(ledger.hears(ends_of(1000, 81), kStart));
  EXPECT_FALSE(ledger.hears(ends_of(1001), kStart));
  EXPECT_TRUE(ledger.hears(ends_of(1000), kStart + minutes(6))) << "it was heard from meanwhile";
  EXPECT_FALSE(ledger.hears(ends_of(1000), kStart + minutes(11)));
}

TEST(FlowLedgerTest, PeersAreBoundedAndTheLastOnesAreKnown) {
  FlowLedger ledger;
  const auto peer = [](size_t number) {
    return Ends{{kGuest, 1000},
                {IpAddress::from_number(static_cast<uint32_t>(number >> 12)),
                 static_cast<uint16_t>(1 + (number & 0xfff))}};
  };
  constexpr size_t kMany = 3 * FlowLedger::kMostPeers;
  for (size_t i = 0; i < kMany; ++i) {
    ledger.note_datagram(peer(i), kStart + std::chrono::microseconds(i));
  }
  size_t known = 0;
  for (size_t i = 0; i < kMany; ++i) known += ledger.hears(peer(i), kStart + seconds(1));
  EXPECT_LE(known, FlowLedger::kMostPeers);
  for (size_t i = kMany - 1000; i < kMany; ++i) {
    EXPECT_TRUE(ledger.hears(peer(i), kStart + seconds(1))) << i;
  }
}

TEST(FlowLedgerTest, AnEighthOfTheSocketsForDatagramsIsTheOldest) {
  FlowLedger ledger;
  for (int i = 0; i < 16; ++i) {
    ledger.opened_udp(10 + i, {kGuest, static_cast<uint16_t>(1000 + i)}, kStart + seconds(i));
  }
  EXPECT_EQ(ledger.udp_silence(8, kStart + seconds(100)), seconds(99));
  ledger.note_datagram(ends_of(1000), kStart + seconds(50));
  EXPECT_EQ(ledger.udp_silence(8, kStart + seconds(100)), seconds(98));
}

}  // namespace
}  // namespace crosvm
