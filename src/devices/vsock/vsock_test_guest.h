#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unix_address.h"
#include "devices/vsock/vsock_device.h"
#include "devices/vsock/vsock_host.h"
#include "devices/vsock/vsock_packet.h"
#include "vhost/conformance/threads.h"
#include "virtio/rig/rig.h"

namespace crosvm {

/// A directory for sockets, which goes with the object.
class SocketDirectory {
 public:
  SocketDirectory() {
    std::string name = "/tmp/crosvm-vsock-XXXXXX";
    CHECK(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~SocketDirectory() { std::filesystem::remove_all(path_); }
  SocketDirectory(const SocketDirectory&) = delete;
  SocketDirectory& operator=(const SocketDirectory&) = delete;
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
  bool has(std::string_view name) const { return std::filesystem::exists(file(name)); }

 private:
  std::string path_;
};

/// What a program of the host does with Unix sockets; each call waits for some seconds at most.
class HostSocket {
 public:
  explicit HostSocket(Fd fd) : fd_(std::move(fd)) {}

  static HostSocket listen(const std::string& path, int type = SOCK_STREAM, int backlog = 128) {
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    const UnixAddress address = *UnixAddress::of(path);
    CHECK(::bind(fd.get(), address.get(), address.size()) == 0);
    CHECK(::listen(fd.get(), backlog) == 0);
    return HostSocket(std::move(fd));
  }
  static HostSocket connect(const std::string& path, int type = SOCK_STREAM) {
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    const UnixAddress address = *UnixAddress::of(path);
    EXPECT_EQ(::connect(fd.get(), address.get(), address.size()), 0) << std::strerror(errno);
    return HostSocket(std::move(fd));
  }
  HostSocket accept() const {
    if (!wait(POLLIN)) return HostSocket(Fd());
    return HostSocket(Fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  }
  bool wait(short events, int ms = 10'000) const {
    pollfd waiting{.fd = fd_.get(), .events = events, .revents = 0};
    return ::poll(&waiting, 1, ms) == 1;
  }
  /// Sends without waiting; returns the bytes that went.
  size_t send(std::string_view text, int flags = MSG_DONTWAIT) const {
    const ssize_t put = ::send(fd_.get(), text.data(), text.size(), flags | MSG_NOSIGNAL);
    return put < 0 ? 0 : static_cast<size_t>(put);
  }
  /// So many bytes, or fewer at the end of the stream or of patience.
  std::string receive(size_t size) const {
    std::string all;
    while (all.size() < size && wait(POLLIN)) {
      std::string part(size - all.size(), '\0');
      const ssize_t got = ::recv(fd_.get(), part.data(), part.size(), 0);
      if (got <= 0) break;
      all.append(part, 0, static_cast<size_t>(got));
    }
    return all;
  }
  /// One message of a sequenced-packet socket.
  std::string message() const {
    std::string text(size_t{1} << 20, '\0');
    if (!wait(POLLIN)) return "nothing came";
    const ssize_t got = ::recv(fd_.get(), text.data(), text.size(), 0);
    text.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return text;
  }
  /// The end of the stream comes next: 0, or the errno.
  int end() const {
    char byte = 0;
    if (!wait(POLLIN)) return ETIMEDOUT;
    const ssize_t got = ::recv(fd_.get(), &byte, 1, MSG_DONTWAIT);
    return got < 0 ? errno : static_cast<int>(got);
  }
  void shut(int how) const { ::shutdown(fd_.get(), how); }
  void close() { fd_ = {}; }
  explicit operator bool() const { return static_cast<bool>(fd_); }

 private:
  Fd fd_;
};

/// Bytes by chance, the same each time.
inline std::string random_bytes(size_t size, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

/// A packet as the guest gets it.
struct VsockTestPacket {
  bool arrived = false;
  VsockHeader header;
  std::string payload;
  // Copies: nothing may refer to a field of a packed header.
  int op() const { return arrived ? header.op : -1; }
  uint32_t flags() const { return header.flags; }
  uint32_t len() const { return header.len; }
  uint64_t src_cid() const { return header.src_cid; }
  uint64_t dst_cid() const { return header.dst_cid; }
  uint32_t src_port() const { return header.src_port; }
  uint32_t dst_port() const { return header.dst_port; }
};

/// A socket device, what it has outside of its jail, and a driver that plays the guest.
class VsockTestGuest {
 public:
  static constexpr uint64_t kCid = 7;
  static constexpr size_t kRoom = 4096;  // payload bytes of a receive buffer
  struct Options {
    RigOptions rig = {};
    size_t receive_buffers = 64;
  };

  explicit VsockTestGuest(const std::string& rules) : VsockTestGuest(rules, Options{}) {}
  VsockTestGuest(const std::string& rules, const Options& options) {
    const std::string text = "cid=7,backend=user" + (rules.empty() ? "" : "," + rules);
    auto config = VsockConfig::parse(*KeyValues::parse(text));
    CHECK(config.has_value());
    auto opened = VsockHost::open(*config);
    CHECK(opened.has_value());
    host_ = std::move(opened->host);
    auto device = opened_device<VsockFactory>(text, std::move(opened->resources));
    rig_.emplace(must_have_rig(
        Rig::create(device_type<VsockFactory>(), text, *std::move(device), options.rig)));
    if (options.rig.place == RigPlace::kInline) {
      // As the device: when the test says so.
      host_loop_ = *EventLoop::create();
      CHECK(host_->serve(*host_loop_).has_value());
    } else {
      host_thread_.emplace();
      EventLoop& loop = host_thread_->loop();
      loop.post([this, &loop] { CHECK(host_->serve(loop).has_value()); });
    }
    for (size_t i = 0; i < options.receive_buffers; ++i) offer_buffer();
  }
  ~VsockTestGuest() {
    rig_.reset();
    if (!host_thread_) return;
    std::promise<void> gone;
    host_thread_->loop().post([&] {
      host_.reset();
      gone.set_value();
    });
    gone.get_future().wait();
  }

  Rig& rig() { return *rig_; }
  VsockHost& host() { return *host_; }
  void offer_buffer(size_t size = sizeof(VsockHeader) + kRoom) {
    rig_->driver(0).send({writable(size)});
  }
  /// The host's end, and the device, inline: what is due.
  void turn() {
    if (host_loop_) (void)host_loop_->run_once(std::chrono::milliseconds(0));
    rig_->run_once();
  }

  static VsockHeader header(uint16_t op, VsockPorts ports, bool seqpacket = false) {
    return {.src_cid = kCid,
            .dst_cid = 2,
            .src_port = ports.guest,
            .dst_port = ports.host,
            .type = static_cast<uint16_t>(seqpacket ? VIRTIO_VSOCK_TYPE_SEQPACKET
                                                    : VIRTIO_VSOCK_TYPE_STREAM),
            .op = op,
            .buf_alloc = 256 << 10};
  }
  /// Sends a packet as it is, and waits until the device has taken it.
  void send_raw(const VsockHeader& header, std::string_view payload = {}) {
    std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
    const RigToken token = rig_->driver(1).send({readable(bytes + std::string(payload))});
    EXPECT_TRUE(rig_->driver(1).wait_used(token).arrived);
  }
  /// The next packet for the guest; its buffer is offered again.
  VsockTestPacket receive(std::chrono::milliseconds patience = std::chrono::seconds(10)) {
    VsockTestPacket packet;
    const RigUsed used = rig_->driver(0).wait_used(patience);
    if (!used.arrived || used.written < sizeof(VsockHeader)) return packet;
    offer_buffer();
    packet.arrived = true;
    std::memcpy(&packet.header, used.bytes.data(), sizeof(VsockHeader));
    packet.payload.assign(reinterpret_cast<const char*>(used.bytes.data()) + sizeof(VsockHeader),
                          used.written - sizeof(VsockHeader));
    EXPECT_EQ(packet.len(), packet.payload.size());
    EXPECT_EQ(packet.dst_cid(), kCid);
    return packet;
  }
  bool is_quiet() { return !receive(std::chrono::milliseconds(100)).arrived; }

 private:
  std::unique_ptr<VsockHost> host_;
  std::optional<Rig> rig_;
  std::unique_ptr<EventLoop> host_loop_;
  std::optional<LoopThread> host_thread_;
};

/// A socket of the guest, with the flow control of a driver that is in order. Packets of several
/// sockets of one guest are told apart by who receives them: one at a time.
class GuestSocket {
 public:
  GuestSocket(VsockTestGuest& guest, VsockPorts ports, bool seqpacket = false)
      : guest_(guest), ports_(ports), seqpacket_(seqpacket) {}

  /// Returns the operation of the answer.
  int connect() {
    send(VIRTIO_VSOCK_OP_REQUEST);
    return next().op();
  }
  /// Takes the connection that the device offers next.
  static GuestSocket accept(VsockTestGuest& guest, uint32_t port, bool seqpacket = false) {
    const VsockTestPacket offer = guest.receive();
    EXPECT_EQ(offer.op(), VIRTIO_VSOCK_OP_REQUEST);
    EXPECT_EQ(offer.dst_port(), port);
    EXPECT_EQ(offer.src_cid(), 2u);
    GuestSocket socket(guest, {.guest = port, .host = offer.header.src_port}, seqpacket);
    socket.note(offer);
    socket.send(VIRTIO_VSOCK_OP_RESPONSE);
    return socket;
  }

  VsockHeader header(uint16_t op, uint32_t flags = 0) const {
    VsockHeader made = VsockTestGuest::header(op, ports_, seqpacket_);
    made.flags = flags;
    made.fwd_cnt = received_;
    return made;
  }
  void send(uint16_t op, uint32_t flags = 0) { guest_.send_raw(header(op, flags)); }
  void shut(uint32_t flags) { send(VIRTIO_VSOCK_OP_SHUTDOWN, flags); }
  /// One data packet, whatever the credit is.
  void send_packet(std::string_view payload, uint32_t flags = 0) {
    VsockHeader made = header(VIRTIO_VSOCK_OP_RW, flags);
    made.len = static_cast<uint32_t>(payload.size());
    sent_ += made.len;
    guest_.send_raw(made, payload);
  }
  /// Sends all of it as the credit allows, waiting for more of it.
  void send_all(std::string_view bytes, uint32_t last_flags = 0, size_t piece = 32 << 10) {
    while (true) {
      const size_t part = std::min<size_t>({bytes.size(), piece, credit()});
      const bool last = part == bytes.size();
      if (part > 0 || last) send_packet(bytes.substr(0, part), last ? last_flags : 0);
      bytes.remove_prefix(part);
      if (last) return;
      if (credit() > 0) continue;
      const VsockTestPacket update = next();
      ASSERT_EQ(update.op(), VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    }
  }
  uint32_t credit() const { return alloc_ - (sent_ - forwarded_); }

  /// The next packet, which must be for this socket.
  VsockTestPacket next() {
    VsockTestPacket packet = guest_.receive();
    note(packet);
    return packet;
  }
  /// The next that is not about credit alone.
  VsockTestPacket next_event() {
    VsockTestPacket packet = next();
    while (packet.op() == VIRTIO_VSOCK_OP_CREDIT_UPDATE ||
           packet.op() == VIRTIO_VSOCK_OP_CREDIT_REQUEST) {
      packet = next();
    }
    return packet;
  }
  /// So many bytes of the stream; tells the device now and then that they were taken.
  std::string receive(size_t size) {
    std::string all;
    while (all.size() < size) {
      const VsockTestPacket packet = next_event();
      if (packet.op() != VIRTIO_VSOCK_OP_RW) break;
      all += packet.payload;
      take(packet.payload.size());
    }
    return all;
  }
  /// One message; how it ended is in `flags`.
  std::string message(uint32_t* flags = nullptr) {
    std::string all;
    while (true) {
      const VsockTestPacket packet = next_event();
      if (packet.op() != VIRTIO_VSOCK_OP_RW) return "no message";
      all += packet.payload;
      if ((packet.flags() & VIRTIO_VSOCK_SEQ_EOM) == 0) continue;
      if (flags != nullptr) *flags = packet.flags();
      take(all.size());
      return all;
    }
  }
  /// The guest's program has read so much.
  void take(size_t bytes) {
    received_ += static_cast<uint32_t>(bytes);
    if (received_ - told_ < (64 << 10)) return;
    told_ = received_;
    send(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
  }
  VsockPorts ports() const { return ports_; }

  /// Takes in what a packet says that was received elsewhere.
  void note(const VsockTestPacket& packet) {
    if (!packet.arrived) return;
    EXPECT_EQ(packet.dst_port(), ports_.guest);
    EXPECT_EQ(packet.src_port(), ports_.host);
    alloc_ = packet.header.buf_alloc;
    forwarded_ = packet.header.fwd_cnt;
  }

 private:
  VsockTestGuest& guest_;
  VsockPorts ports_;
  bool seqpacket_;
  uint32_t sent_ = 0;
  uint32_t forwarded_ = 0;
  uint32_t alloc_ = 0;
  uint32_t received_ = 0;
  uint32_t told_ = 0;
};

}  // namespace crosvm
