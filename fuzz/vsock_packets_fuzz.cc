// A hostile driver of the socket device: packets of a few connections, in any order and with wrong
// fields, while programs of the host connect, send, read and close.

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "base/unix_address.h"
#include "devices/vsock/vsock_device.h"
#include "devices/vsock/vsock_host.h"
#include "hostile_device.h"

namespace crosvm {
namespace {

/// Programs of the host, with their sockets in a directory that all runs share.
class Programs {
 public:
  Programs() {
    CHECK(::mkdtemp(directory_.data()) != nullptr);
    stream_ = listen("a", SOCK_STREAM);
    messages_ = listen("m", SOCK_SEQPACKET);
  }
  ~Programs() {
    for (const char* name : {"a", "m"}) ::unlink(path(name).c_str());
    ::rmdir(directory_.c_str());
  }
  std::string path(const char* name) const { return directory_ + "/" + name; }

  void act(FuzzInput& input) {
    const uint8_t what = input.byte();
    for (const Fd* server : {&stream_, &messages_}) {
      Fd peer(::accept4(server->get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (peer && peers_.size() < 16) peers_.push_back(std::move(peer));
    }
    if ((what & 1) != 0) connect("l", SOCK_STREAM);
    if ((what & 2) != 0) connect("n", SOCK_SEQPACKET);
    if (peers_.empty()) return;
    const size_t which = input.byte() % peers_.size();
    const int socket = peers_[which].get();
    std::vector<std::byte> bytes(input.byte() * 64u);
    if ((what & 4) != 0) (void)::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if ((what & 8) != 0) (void)::recv(socket, bytes.data(), bytes.size(), 0);
    if ((what & 16) != 0) ::shutdown(socket, what % 3);
    if ((what & 32) != 0) peers_.erase(peers_.begin() + static_cast<ptrdiff_t>(which));
  }
  void leave() { peers_.clear(); }

 private:
  Fd listen(const char* name, int type) const {
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const UnixAddress address = *UnixAddress::of(path(name));
    CHECK(::bind(fd.get(), address.get(), address.size()) == 0);
    CHECK(::listen(fd.get(), 16) == 0);
    return fd;
  }
  void connect(const char* name, int type) {
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const UnixAddress address = *UnixAddress::of(path(name));
    const bool there = ::connect(fd.get(), address.get(), address.size()) == 0;
    if (there && peers_.size() < 16) peers_.push_back(std::move(fd));
  }

  std::string directory_ = "/tmp/crosvm-vsock-fuzz-XXXXXX";
  Fd stream_;
  Fd messages_;
  std::vector<Fd> peers_;
};

/// Mostly a packet that makes sense somewhere.
VsockHeader packet(FuzzInput& input) {
  VsockHeader header;
  const uint8_t kind = input.byte();
  header.src_cid = (kind & 0x0f) == 1 ? kind : 7;
  header.dst_cid = (kind & 0x0f) == 2 ? kind : 2;
  header.src_port = input.byte() % 4 == 0 ? 22 : input.byte() % 3;
  header.dst_port = (kind & 0x30) == 0 ? (1u << 30) + input.byte() % 8 : 1024 + input.byte() % 3;
  header.type = static_cast<uint16_t>((kind & 0xc0) == 0xc0 ? input.byte() : 1 + (kind >> 7));
  header.op = input.byte() % 10;
  header.flags = input.byte() % 4;
  header.len = input.byte() * (kind % 5);
  header.buf_alloc = input.byte() << (kind % 16);
  header.fwd_cnt = input.byte() << (kind % 8);
  return header;
}

void play(std::span<const uint8_t> bytes, bool packed) {
  static Programs programs;
  FuzzInput input(bytes);
  const std::string text = "cid=7,backend=user,connect=[1024:" + programs.path("a") +
                           ",1025/seqpacket:" + programs.path("m") +
                           "],listen=[22:" + programs.path("l") +
                           ",1/seqpacket:" + programs.path("n") + "]";
  auto loop = EventLoop::create();
  auto opened = VsockHost::open(*VsockConfig::parse(*KeyValues::parse(text)));
  CHECK(loop.has_value() && opened.has_value() && opened->host->serve(**loop).has_value());
  auto device = opened_device<VsockFactory>(text, std::move(opened->resources));
  Rig rig = must_have_rig(
      Rig::create(*std::move(device), {.place = RigPlace::kInline, .packed = packed}));
  while (!input.empty()) {
    for (const uint8_t left = input.byte() % 8; rig.driver(0).outstanding() < left;) {
      rig.driver(0).send({writable(sizeof(VsockHeader) + input.byte() * 8u)});
    }
    if (rig.driver(1).outstanding() < 64) {
      const VsockHeader header = packet(input);
      const std::vector<std::byte> payload(header.len % 300);
      rig.driver(1).send({readable(header), readable(std::span<const std::byte>(payload))});
    }
    rig.settle();
    (void)(*loop)->run_once(std::chrono::milliseconds(0));
    programs.act(input);
    rig.settle();
    while (rig.driver(0).try_used() || rig.driver(1).try_used()) continue;
    if (input.byte() > 250) rig.reset();
  }
  programs.leave();
  rig.settle();
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) crosvm::play({data + 1, size - 1}, (data[0] & 1) != 0);
  return 0;
}
