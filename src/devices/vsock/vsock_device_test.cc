#include "devices/vsock/vsock_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/format.h"
#include "devices/vsock/vsock_test_guest.h"

namespace crosvm {
namespace {

constexpr uint32_t kBoth = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;

class VsockDeviceTest : public testing::TestWithParam<std::tuple<RigPlace, bool>> {
 protected:
  VsockTestGuest::Options options() const {
    return {.rig = {.place = std::get<0>(GetParam()), .packed = std::get<1>(GetParam())}};
  }
  /// What may be connected to: 1024 and, of messages, 1025.
  std::string connect_rules() const {
    return format_text("connect=[1024:{},1025/seqpacket:{}]", directory_.file("a"),
                       directory_.file("m"));
  }
  std::string listen_rules() const {
    return format_text("listen=[22:{},23/seqpacket:{}]", directory_.file("l"),
                       directory_.file("n"));
  }

  SocketDirectory directory_;
};

TEST_P(VsockDeviceTest, SaysWhoTheGuestIs) {
  VsockTestGuest guest("", options());
  const DeviceInfo& info = guest.rig().info();
  EXPECT_EQ(info.device_type, uint32_t{VIRTIO_ID_VSOCK});
  EXPECT_EQ(info.queue_sizes, (std::vector<uint16_t>{256, 256, 256}));
  uint64_t cid = 0;
  ASSERT_EQ(info.config.size(), sizeof(cid));
  std::memcpy(&cid, info.config.data(), sizeof(cid));
  EXPECT_EQ(cid, 7u);
  EXPECT_EQ(info.features & 3, 3u);
}

TEST_P(VsockDeviceTest, BytesGoBothWays) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1024});
  ASSERT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket peer = server.accept();
  ASSERT_TRUE(peer);

  const std::string there = random_bytes(3 << 20, 1);
  std::string came;
  std::thread reader([&] { came = peer.receive(there.size()); });
  socket.send_all(there);
  reader.join();
  EXPECT_TRUE(came == there);

  const std::string back = random_bytes(3 << 20, 2);
  std::thread writer([&] { EXPECT_EQ(peer.send(back, 0), back.size()); });
  EXPECT_TRUE(socket.receive(back.size()) == back);
  writer.join();

  socket.shut(kBoth);
  EXPECT_EQ(socket.next_event().op(), VIRTIO_VSOCK_OP_RST);
  EXPECT_EQ(peer.end(), 0);
}

TEST_P(VsockDeviceTest, NothingIsReachedThatIsNotNamed) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules(), options());
  for (const uint32_t port : {0u, 1u, 22u, 1023u, 1026u, 1u << 30, UINT32_MAX}) {
    GuestSocket socket(guest, {.guest = 5000, .host = port});
    EXPECT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RST) << port;
  }
  GuestSocket stream_to_messages(guest, {.guest = 5000, .host = 1025});
  EXPECT_EQ(stream_to_messages.connect(), VIRTIO_VSOCK_OP_RST);
  GuestSocket messages_to_stream(guest, {.guest = 5000, .host = 1024}, true);
  EXPECT_EQ(messages_to_stream.connect(), VIRTIO_VSOCK_OP_RST);
  EXPECT_FALSE(server.wait(POLLIN, 50));
}

TEST_P(VsockDeviceTest, NobodyListensOnTheHost) {
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1024});
  EXPECT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RST);
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  EXPECT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
}

TEST_P(VsockDeviceTest, ProgramsOfTheHostConnectToTheGuest) {
  VsockTestGuest guest(listen_rules(), options());
  const HostSocket program = HostSocket::connect(directory_.file("l"));
  EXPECT_EQ(program.send("who is there?"), 13u);
  GuestSocket socket = GuestSocket::accept(guest, 22);
  EXPECT_EQ(socket.receive(13), "who is there?");
  socket.send_all("me");
  EXPECT_EQ(program.receive(2), "me");
}

TEST_P(VsockDeviceTest, AGuestThatDoesNotListenEndsTheProgramsConnection) {
  VsockTestGuest guest(listen_rules(), options());
  const HostSocket program = HostSocket::connect(directory_.file("l"));
  const VsockTestPacket offer = guest.receive();
  ASSERT_EQ(offer.op(), VIRTIO_VSOCK_OP_REQUEST);
  guest.send_raw(
      VsockTestGuest::header(VIRTIO_VSOCK_OP_RST, {.guest = 22, .host = offer.header.src_port}));
  EXPECT_EQ(program.end(), 0);
}

TEST_P(VsockDeviceTest, TheGuestSendsNoMoreAndStillReceives) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1024});
  ASSERT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  HostSocket peer = server.accept();
  socket.send_all("a question");
  socket.shut(VIRTIO_VSOCK_SHUTDOWN_SEND);
  EXPECT_EQ(peer.receive(64), "a question");  // to its end
  EXPECT_EQ(peer.send("an answer"), 9u);
  EXPECT_EQ(socket.receive(9), "an answer");
  peer.close();
  const VsockTestPacket end = socket.next_event();
  EXPECT_EQ(end.op(), VIRTIO_VSOCK_OP_SHUTDOWN);
}

TEST_P(VsockDeviceTest, TheGuestMaySayThatItSendsNoMoreBeforeItIsConnected) {
  const HostSocket server = HostSocket::listen(directory_.file("a"), SOCK_STREAM, 0);
  HostSocket first = HostSocket::connect(directory_.file("a"));  // there is room for no other
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1024});
  socket.send(VIRTIO_VSOCK_OP_REQUEST);
  socket.shut(VIRTIO_VSOCK_SHUTDOWN_SEND);
  EXPECT_TRUE(guest.is_quiet());
  ASSERT_TRUE(server.accept());
  ASSERT_EQ(socket.next().op(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket peer = server.accept();
  EXPECT_EQ(peer.end(), 0);
  EXPECT_EQ(peer.send("an answer"), 9u);
  EXPECT_EQ(socket.receive(9), "an answer");
}

TEST_P(VsockDeviceTest, TheHostSendsNoMoreAndStillReceives) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1024});
  ASSERT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket peer = server.accept();
  EXPECT_EQ(peer.send("all"), 3u);
  peer.shut(SHUT_WR);
  EXPECT_EQ(socket.receive(3), "all");
  const VsockTestPacket end = socket.next_event();
  EXPECT_EQ(end.op(), VIRTIO_VSOCK_OP_SHUTDOWN);
  EXPECT_EQ(end.flags(), uint32_t{VIRTIO_VSOCK_SHUTDOWN_SEND});
  socket.send_all("still here");
  EXPECT_EQ(peer.receive(10), "still here");
}

TEST_P(VsockDeviceTest, ASlowReaderHoldsUpNobodyElseAndLosesNothing) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket slow(guest, {.guest = 5000, .host = 1024});
  ASSERT_EQ(slow.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket sleeper = server.accept();
  // As much as the socket and the device take; then the guest has no credit.
  const std::string bytes = random_bytes(4 << 20);
  size_t sent = 0;
  while (sent < bytes.size()) {
    const size_t part = std::min<size_t>({slow.credit(), size_t{16} << 10, bytes.size() - sent});
    if (part == 0) {
      const VsockTestPacket more = guest.receive(std::chrono::milliseconds(200));
      if (!more.arrived) break;
      ASSERT_EQ(more.op(), VIRTIO_VSOCK_OP_CREDIT_UPDATE);
      slow.note(more);
      continue;
    }
    slow.send_packet(std::string_view(bytes).substr(sent, part));
    sent += part;
  }
  ASSERT_LT(sent, bytes.size());
  GuestSocket other(guest, {.guest = 5001, .host = 1024});
  ASSERT_EQ(other.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket peer = server.accept();
  other.send_all("hello");
  EXPECT_EQ(peer.receive(5), "hello");

  slow.shut(kBoth);  // the program of the guest has gone; what it sent counts
  EXPECT_EQ(slow.next_event().op(), VIRTIO_VSOCK_OP_RST);
  EXPECT_TRUE(sleeper.receive(sent + 1) == bytes.substr(0, sent));
}

TEST_P(VsockDeviceTest, AGuestThatDoesNotReadHoldsUpTheProgram) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1024});
  VsockHeader request = socket.header(VIRTIO_VSOCK_OP_REQUEST);
  request.buf_alloc = 1000;
  guest.send_raw(request);
  ASSERT_EQ(socket.next().op(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket peer = server.accept();
  const std::string bytes = random_bytes(3000);
  EXPECT_EQ(peer.send(bytes), bytes.size());
  EXPECT_EQ(socket.next().payload, bytes.substr(0, 1000));
  EXPECT_EQ(socket.next().op(), VIRTIO_VSOCK_OP_CREDIT_REQUEST);
  EXPECT_TRUE(guest.is_quiet());
  VsockHeader update = socket.header(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
  update.buf_alloc = 1000;
  update.fwd_cnt = 600;
  guest.send_raw(update);
  EXPECT_EQ(socket.next().payload, bytes.substr(1000, 600));
  update.fwd_cnt = 1000'000;  // of bytes that were never sent
  guest.send_raw(update);
  EXPECT_EQ(socket.next().op(), VIRTIO_VSOCK_OP_CREDIT_REQUEST);
  EXPECT_TRUE(guest.is_quiet());
  update.fwd_cnt = 1600;
  update.buf_alloc = 1 << 20;
  guest.send_raw(update);
  EXPECT_EQ(socket.next().payload, bytes.substr(1600));
}

TEST_P(VsockDeviceTest, AProgramThatDiesWithUnreadBytesResetsTheConnection) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1024});
  ASSERT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  HostSocket peer = server.accept();
  socket.send_all("never read");
  EXPECT_TRUE(peer.wait(POLLIN));
  peer.close();
  VsockTestPacket end = socket.next_event();
  if (end.op() == VIRTIO_VSOCK_OP_SHUTDOWN) end = socket.next_event();
  EXPECT_EQ(end.op(), VIRTIO_VSOCK_OP_RST);
}

TEST_P(VsockDeviceTest, AResetByTheGuestEndsTheProgramsConnection) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1024});
  ASSERT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket peer = server.accept();
  socket.send(VIRTIO_VSOCK_OP_RST);
  EXPECT_EQ(peer.end(), 0);
  EXPECT_TRUE(guest.is_quiet());                          // no reset is answered with a reset
  EXPECT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);  // the ports are free
}

TEST_P(VsockDeviceTest, AResetOfTheDeviceEndsAllAndDeliversWhatItHas) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules() + "," + listen_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1024});
  ASSERT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket peer = server.accept();
  socket.send_all("last words");
  guest.rig().reset();
  EXPECT_EQ(peer.receive(64), "last words");
  for (int i = 0; i < 8; ++i) guest.offer_buffer();
  GuestSocket again(guest, {.guest = 5000, .host = 1024});
  EXPECT_EQ(again.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket program = HostSocket::connect(directory_.file("l"));
  GuestSocket offered = GuestSocket::accept(guest, 22);
  offered.send_all("up again");
  EXPECT_EQ(program.receive(8), "up again");
}

TEST_P(VsockDeviceTest, ConnectionsGoOnWhenTheRingsStopAndStart) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1024});
  ASSERT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket peer = server.accept();
  guest.rig().restart();
  EXPECT_EQ(peer.send("before"), 6u);
  EXPECT_EQ(socket.receive(6), "before");
  socket.send_all("after");
  EXPECT_EQ(peer.receive(5), "after");
}

TEST_P(VsockDeviceTest, MessagesKeepTheirBorders) {
  const HostSocket server = HostSocket::listen(directory_.file("m"), SOCK_SEQPACKET);
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1025}, true);
  ASSERT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  HostSocket peer = server.accept();
  const std::vector<std::string> messages = {"one", "", "three", random_bytes(100'000),
                                             std::string(1, 'x')};
  for (const std::string& message : messages) {
    socket.send_all(message, VIRTIO_VSOCK_SEQ_EOM, 30'000);
    EXPECT_TRUE(peer.message() == message) << message.size();
  }
  for (const std::string& message : messages) {
    EXPECT_EQ(peer.send(message, 0), message.size());
    uint32_t flags = 0;
    EXPECT_TRUE(socket.message(&flags) == message) << message.size();
    EXPECT_EQ(flags, uint32_t{VIRTIO_VSOCK_SEQ_EOM});
  }
  peer.send("", 0);
  peer.send("last", 0);
  peer.close();
  EXPECT_EQ(socket.message(), "");
  EXPECT_EQ(socket.message(), "last");
  VsockTestPacket end = socket.next_event();
  while (end.op() == VIRTIO_VSOCK_OP_SHUTDOWN && end.flags() != kBoth) end = socket.next_event();
  EXPECT_EQ(end.op(), VIRTIO_VSOCK_OP_SHUTDOWN);
}

TEST_P(VsockDeviceTest, MessagesWaitForASlowReader) {
  const HostSocket server = HostSocket::listen(directory_.file("m"), SOCK_SEQPACKET);
  VsockTestGuest guest(connect_rules(), options());
  GuestSocket socket(guest, {.guest = 5000, .host = 1025}, true);
  ASSERT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
  const HostSocket peer = server.accept();
  constexpr int kMessages = 3000;  // more than a socket takes at once
  for (int i = 0; i < kMessages; ++i) {
    socket.send_packet(format_text("{}", i), VIRTIO_VSOCK_SEQ_EOM);
  }
  socket.shut(VIRTIO_VSOCK_SHUTDOWN_SEND);
  for (int i = 0; i < kMessages; ++i) ASSERT_EQ(peer.message(), format_text("{}", i));
  EXPECT_EQ(peer.message(), "");
}

TEST_P(VsockDeviceTest, ProgramsSendMessagesToTheGuest) {
  VsockTestGuest guest(listen_rules(), options());
  const HostSocket program = HostSocket::connect(directory_.file("n"), SOCK_SEQPACKET);
  GuestSocket socket = GuestSocket::accept(guest, 23, true);
  EXPECT_EQ(program.send("a", 0), 1u);
  EXPECT_EQ(program.send("", 0), 0u);
  EXPECT_EQ(program.send("bc", 0), 2u);
  EXPECT_EQ(socket.message(), "a");
  EXPECT_EQ(socket.message(), "");
  EXPECT_EQ(socket.message(), "bc");
  socket.send_all("de", VIRTIO_VSOCK_SEQ_EOM | VIRTIO_VSOCK_SEQ_EOR);
  EXPECT_EQ(program.message(), "de");
}

TEST_P(VsockDeviceTest, AThousandConnections) {
  constexpr uint32_t kCount = 1000;
  const HostSocket server = HostSocket::listen(directory_.file("a"), SOCK_STREAM, 16);
  VsockTestGuest guest(connect_rules(), options());
  std::vector<HostSocket> peers;
  std::thread accepting([&] {
    for (uint32_t i = 0; i < kCount; ++i) peers.push_back(server.accept());
  });
  std::vector<GuestSocket> sockets;
  for (uint32_t i = 0; i < kCount; ++i) {
    sockets.emplace_back(guest, VsockPorts{.guest = 10'000 + i, .host = 1024});
    ASSERT_EQ(sockets.back().connect(), VIRTIO_VSOCK_OP_RESPONSE) << i;
  }
  accepting.join();
  for (uint32_t i = 0; i < kCount; ++i) sockets[i].send_all(format_text("{:06}", i));
  for (uint32_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(peers[i].receive(6), format_text("{:06}", i));
    ASSERT_EQ(peers[i].send(format_text("{:07}", i)), 7u);
    ASSERT_EQ(sockets[i].receive(7), format_text("{:07}", i));
  }
  for (GuestSocket& socket : sockets) {
    socket.shut(kBoth);
    ASSERT_EQ(socket.next_event().op(), VIRTIO_VSOCK_OP_RST);
  }
  for (const HostSocket& peer : peers) ASSERT_EQ(peer.end(), 0);
}

TEST_P(VsockDeviceTest, ThereIsAMostOfConnections) {
  const HostSocket server = HostSocket::listen(directory_.file("a"));
  VsockTestGuest guest(connect_rules() + "," + listen_rules(), options());
  std::vector<HostSocket> peers;
  for (uint32_t i = 0; i < VsockConnections::kMost; ++i) {
    GuestSocket socket(guest, {.guest = 10'000 + i, .host = 1024});
    ASSERT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE) << i;
    peers.push_back(server.accept());
  }
  GuestSocket extra(guest, {.guest = 9000, .host = 1024});
  EXPECT_EQ(extra.connect(), VIRTIO_VSOCK_OP_RST);
  const HostSocket program = HostSocket::connect(directory_.file("l"));
  EXPECT_TRUE(guest.is_quiet());
  // What the host closes makes room, though the guest does not let go of it.
  peers[0].close();
  EXPECT_EQ(guest.receive().op(), VIRTIO_VSOCK_OP_SHUTDOWN);
  EXPECT_EQ(guest.receive().op(), VIRTIO_VSOCK_OP_RST);
  const VsockTestPacket offer = guest.receive();
  EXPECT_EQ(offer.op(), VIRTIO_VSOCK_OP_REQUEST);
  EXPECT_EQ(offer.dst_port(), 22u);
}

TEST_P(VsockDeviceTest, SocketFilesGoWithTheDevice) {
  HostSocket::listen(directory_.file("l")).close();  // nobody listens there any more
  {
    VsockTestGuest guest(listen_rules(), options());
    EXPECT_TRUE(directory_.has("l"));
    EXPECT_TRUE(directory_.has("n"));
    EXPECT_THAT(guest.host().socket_files(),
                testing::ElementsAre(directory_.file("l"), directory_.file("n")));
  }
  EXPECT_FALSE(directory_.has("l"));
  EXPECT_FALSE(directory_.has("n"));
}

INSTANTIATE_TEST_SUITE_P(Rigs, VsockDeviceTest,
                         testing::Combine(testing::Values(RigPlace::kThread, RigPlace::kWorker),
                                          testing::Bool()),
                         [](const auto& rig) {
                           return name_of(std::get<0>(rig.param)) +
                                  (std::get<1>(rig.param) ? "Packed" : "");
                         });

TEST(VsockHostTest, ATakenPathIsAnErrorThatNamesIt) {
  SocketDirectory directory;
  const HostSocket other = HostSocket::listen(directory.file("l"));
  VsockConfig config;
  config.cid = 3;
  config.backend = VsockConfig::Backend::kUser;
  config.listen = {{.port = 22, .path = directory.file("l")}};
  auto opened = VsockHost::open(config);
  ASSERT_FALSE(opened.has_value());
  EXPECT_THAT(opened.error().what(),
              testing::AllOf(testing::HasSubstr(directory.file("l")),
                             testing::HasSubstr("belongs to a running program")));
  EXPECT_TRUE(directory.has("l"));
}

}  // namespace
}  // namespace crosvm
