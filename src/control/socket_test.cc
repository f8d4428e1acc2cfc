#include "control/socket.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>
#include <filesystem>
#include <fstream>

namespace crosvm::control {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class SocketTest : public testing::Test {
 protected:
  SocketTest() {
    std::string name = "/tmp/control_test.XXXXXX";
    directory_ = ::mkdtemp(name.data());
  }
  ~SocketTest() override { fs::remove_all(directory_); }

  std::string path(const std::string& name) const { return directory_ / name; }

  /// A raw socket bound to `name`, listening or not.
  Fd bound(const std::string& name, int type, bool listening) {
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path(name).copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    if (listening) {
      EXPECT_EQ(::listen(fd.get(), 1), 0);
    }
    return fd;
  }

  static std::pair<PacketSocket, PacketSocket> pair(int flags = 0) {
    std::array<int, 2> ends;
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0, ends.data()), 0);
    return {PacketSocket(Fd(ends[0]), kPacketLimits), PacketSocket(Fd(ends[1]), kPacketLimits)};
  }

  static std::vector<Fd> eventfds(size_t count) {
    std::vector<Fd> fds;
    for (size_t i = 0; i < count; ++i) fds.push_back(std::move(make_eventfd().value()));
    return fds;
  }

  static size_t open_fds() {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
  }

  fs::path directory_;
};

TEST_F(SocketTest, PacketsKeepTheirBoundsAndDescriptors) {
  auto [ours, theirs] = pair();
  auto fds = eventfds(kMaxFdsPerPacket);
  ASSERT_TRUE(theirs.send({.text = "\"Exit\"", .fds = std::move(fds)}));
  ASSERT_TRUE(theirs.send({.text = "2", .fds = {}}));
  auto first = ours.receive();
  ASSERT_TRUE(first && *first);
  EXPECT_EQ((*first)->text, "\"Exit\"");
  ASSERT_EQ((*first)->fds.size(), kMaxFdsPerPacket);
  EXPECT_NE(::fcntl((*first)->fds[0].get(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_EQ((*ours.receive())->text, "2");
}

TEST_F(SocketTest, EmptyPacketIsNotTheEnd) {
  auto [ours, theirs] = pair();
  ASSERT_TRUE(theirs.send({}));
  auto empty = ours.receive();
  ASSERT_TRUE(empty && *empty);
  EXPECT_EQ((*empty)->text, "");
  theirs = PacketSocket(Fd(), kPacketLimits);
  auto end = ours.receive();
  ASSERT_TRUE(end);
  EXPECT_FALSE(*end);
}

TEST_F(SocketTest, TooManyDescriptorsAreRefusedAndNoneLeaks) {
  auto [ours, theirs] = pair();
  auto fds = eventfds(kMaxFdsPerPacket + 1);
  char byte = 'x';
  iovec text{.iov_base = &byte, .iov_len = 1};
  std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
  msghdr message{};
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  for (size_t i = 0; i < fds.size(); ++i) {
    int raw = fds[i].get();
    std::memcpy(CMSG_DATA(part) + i * sizeof(int), &raw, sizeof(int));
  }
  ASSERT_EQ(::sendmsg(theirs.fd().get(), &message, 0), 1);
  ASSERT_TRUE(theirs.send({.text = "next", .fds = {}}));

  size_t before = open_fds();
  auto refused = ours.receive();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), std::errc::bad_message);
  EXPECT_EQ(open_fds(), before);
  EXPECT_EQ((*ours.receive())->text, "next");
}

TEST_F(SocketTest, OversizePacketIsThrownAway) {
  auto [ours, theirs] = pair();
  int bytes = 4 << 20;
  // Without the privilege the kernel caps the buffer below our limit, and no such packet exists.
  if (::setsockopt(theirs.fd().get(), SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0) {
    GTEST_SKIP() << "needs CAP_NET_ADMIN to send a packet this large";
  }
  ASSERT_TRUE(theirs.send({.text = std::string(kMaxPacketBytes, ' '), .fds = {}}));
  ASSERT_TRUE(theirs.send({.text = std::string(kMaxPacketBytes + 1, ' '), .fds = eventfds(1)}));
  ASSERT_TRUE(theirs.send({.text = "next", .fds = {}}));
  EXPECT_EQ((*ours.receive())->text.size(), kMaxPacketBytes);
  size_t before = open_fds();
  auto refused = ours.receive();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), std::errc::message_size);
  EXPECT_EQ(open_fds(), before);
  EXPECT_EQ((*ours.receive())->text, "next");
}

TEST_F(SocketTest, SendingToAClosedPeerIsAnErrorNotASignal) {
  auto [ours, theirs] = pair();
  theirs = PacketSocket(Fd(), kPacketLimits);
  auto sent = ours.send({.text = "x", .fds = {}});
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code(), std::errc::broken_pipe);
}

TEST_F(SocketTest, NonBlockingReceiveSaysThereIsNothing) {
  auto [ours, theirs] = pair(SOCK_NONBLOCK);
  auto nothing = ours.receive();
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().code(), std::errc::resource_unavailable_try_again);
}

TEST_F(SocketTest, ListensAtThePathAndRemovesIt) {
  {
    auto listener = Listener::open(path("vm.sock"));
    ASSERT_TRUE(listener) << listener.error().what();
    auto client = connect(path("vm.sock"));
    ASSERT_TRUE(client) << client.error().what();
    auto accepted = listener->accept();
    ASSERT_TRUE(accepted && *accepted);
    EXPECT_FALSE((*listener->accept()).has_value());
  }
  EXPECT_TRUE(fs::is_empty(directory_));
}

TEST_F(SocketTest, DirectoryGetsASocketNamedAfterTheProcess) {
  std::string name = "crosvm-" + std::to_string(::getpid()) + ".sock";
  auto listener = Listener::open(directory_);
  ASSERT_TRUE(listener);
  EXPECT_EQ(listener->path(), path(name));
  EXPECT_TRUE(fs::is_socket(path(name)));
}

TEST_F(SocketTest, StaleSocketIsReplaced) {
  for (bool listening : {true, false}) {  // of a VMM that was killed: late, or between the two
    bound("vm.sock", SOCK_SEQPACKET, listening);  // closed at once; the file stays
    ASSERT_TRUE(fs::is_socket(path("vm.sock")));
    EXPECT_TRUE(Listener::open(path("vm.sock"))) << listening;
  }
}

TEST_F(SocketTest, LivePathIsTaken) {
  auto first = Listener::open(path("vm.sock"));
  ASSERT_TRUE(first);
  auto second = Listener::open(path("vm.sock"));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), std::errc::address_in_use);
  EXPECT_THAT(second.error().what(), HasSubstr("control socket path taken: " + path("vm.sock") +
                                               " belongs to a running VM"));
  EXPECT_TRUE(connect(path("vm.sock")));
}

TEST_F(SocketTest, LivePathWithAFullBacklogIsTaken) {
  Fd live = bound("vm.sock", SOCK_SEQPACKET, /*listening=*/true);
  std::vector<PacketSocket> waiting;
  for (int i = 0; i < 2; ++i) waiting.push_back(connect(path("vm.sock")).value());
  EXPECT_EQ(Listener::open(path("vm.sock")).error().code(), std::errc::address_in_use);
}

TEST_F(SocketTest, OtherFilesAreNeitherReplacedNorRemoved) {
  std::ofstream(path("file")) << "precious";
  fs::create_symlink("nowhere", path("link"));
  Fd stream = bound("stream", SOCK_STREAM, /*listening=*/true);
  for (const char* name : {"file", "link", "stream"}) {
    auto listener = Listener::open(path(name));
    ASSERT_FALSE(listener) << name;
    EXPECT_EQ(listener.error().code(), std::errc::address_in_use) << name;
    EXPECT_TRUE(fs::exists(fs::symlink_status(path(name)))) << name;
  }
  EXPECT_EQ(fs::file_size(path("file")), 8u);
}

TEST_F(SocketTest, ReplacedFileIsNotRemovedAtTheEnd) {
  {
    auto listener = Listener::open(path("vm.sock"));
    ASSERT_TRUE(listener);
    fs::remove(path("vm.sock"));
    std::ofstream(path("vm.sock")) << "somebody else's";
  }
  EXPECT_TRUE(fs::exists(path("vm.sock")));
}

TEST_F(SocketTest, PathMustFitASocketAddress) {
  std::string fits = path("");
  fits.append(107 - fits.size(), 'x');
  EXPECT_TRUE(Listener::open(fits));
  auto listener = Listener::open(fits + "x");
  ASSERT_FALSE(listener);
  EXPECT_THAT(listener.error().what(), HasSubstr("1 to 107 bytes, this has 108"));
  EXPECT_FALSE(Listener::open(""));
}

TEST_F(SocketTest, MissingDirectoryIsNamed) {
  auto listener = Listener::open(path("none/vm.sock"));
  ASSERT_FALSE(listener);
  EXPECT_EQ(listener.error().code(), std::errc::no_such_file_or_directory);
  EXPECT_THAT(listener.error().what(), HasSubstr(path("none/vm.sock")));
}

TEST_F(SocketTest, AdoptedListenerIsUsedAndNotRemoved) {
  Fd live = bound("vm.sock", SOCK_SEQPACKET, /*listening=*/true);
  ASSERT_EQ(::fcntl(live.get(), F_SETFD, 0), 0);  // as a parent hands it down
  {
    auto listener = Listener::open("/proc/self/fd/" + std::to_string(live.get()));
    ASSERT_TRUE(listener) << listener.error().what();
    auto client = connect(path("vm.sock"));
    ASSERT_TRUE(client);
    EXPECT_TRUE((*listener->accept()).has_value());
  }
  EXPECT_TRUE(fs::is_socket(path("vm.sock")));
}

TEST_F(SocketTest, AdoptedSocketMustListenAndBeSeqpacket) {
  Fd idle = bound("idle", SOCK_SEQPACKET, /*listening=*/false);
  Fd stream = bound("stream", SOCK_STREAM, /*listening=*/true);
  Fd file(::open("/dev/null", O_RDWR));
  for (const Fd* fd : {&idle, &stream, &file}) {
    ASSERT_EQ(::fcntl(fd->get(), F_SETFD, 0), 0);
    auto listener = Listener::open("/proc/self/fd/" + std::to_string(fd->get()));
    ASSERT_FALSE(listener);
    EXPECT_THAT(listener.error().what(), HasSubstr("control socket /proc/self/fd/"));
  }
  EXPECT_FALSE(Listener::open("/proc/self/fd/12345"));
}

TEST_F(SocketTest, ClientRefusesADirectoryAndNamesAMissingSocket) {
  EXPECT_THAT(connect(directory_).error().what(), HasSubstr("is a directory"));
  EXPECT_THAT(connect(path("none")).error().what(), HasSubstr(path("none")));
}

}  // namespace
}  // namespace crosvm::control
