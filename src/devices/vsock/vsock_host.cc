#include "devices/vsock/vsock_host.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "base/socket_pair.h"
#include "devices/vsock/vsock_dialer.h"

namespace crosvm {
namespace {

constexpr int kBacklog = 128;

int socket_type(const VsockRule& rule) { return rule.seqpacket ? SOCK_SEQPACKET : SOCK_STREAM; }

/// With each message comes its sender, which tells one without contents from the end.
bool ask_for_senders(const Fd& socket) {
  const int on = 1;
  return ::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0;
}

Result<void> never_wait(const Fd& socket) {
  const int flags = ::fcntl(socket.get(), F_GETFL);
  if (flags >= 0 && ::fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK) == 0) return {};
  return fail(Error::from_errno("preparing", "the sockets of a socket device"));
}

/// Without waiting: a listener whose queue is full is EAGAIN. Returns the errno, or 0.
int connect_to(const UnixAddress& address, int type, Fd& socket) {
  socket = Fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket || ::connect(socket.get(), address.get(), address.size()) != 0) return errno;
  // Only now: such a socket is given a name of its own before it connects.
  return type != SOCK_SEQPACKET || ask_for_senders(socket) ? 0 : errno;
}

}  // namespace

Result<VsockHost::Opened> VsockHost::open(const VsockConfig& config) {
  Opened opened{.host = std::unique_ptr<VsockHost>(new VsockHost()), .resources = {}};
  VsockHost& host = *opened.host;
  for (const VsockRule& rule : config.connect) {
    host.targets_.push_back({.address = TRY(with_context(UnixAddress::of(rule.path), "connect")),
                             .type = socket_type(rule)});
  }
  for (const VsockRule& rule : config.listen) {
    TRY(host.check_new(rule.path));
    SocketFile file = TRY(with_context(
        SocketFile::listen(rule.path, {.type = socket_type(rule), .backlog = kBacklog}), "listen"));
    if (rule.seqpacket && !ask_for_senders(file.fd())) {
      return fail(Error::from_errno("preparing socket", rule.path));
    }
    opened.resources.listeners.push_back(TRY(file.fd().duplicate()));
    host.files_.push_back(std::move(file));
  }
  FdPair pair = TRY(make_socket_pair(SOCK_SEQPACKET, "a socket device"));
  host.channel_ = PacketSocket(std::move(pair.ours), kVsockDialPackets);
  TRY(never_wait(pair.theirs));
  opened.resources.dialer = std::move(pair.theirs);
  return opened;
}

/// Two names of one file: the second one would find it taken.
Result<void> VsockHost::check_new(const std::string& path) const {
  for (const SocketFile& file : files_) {
    if (!file.is_at(path)) continue;
    return fail(Error::invalid(format_text(
        "listen: {} is {}, which is given too; listen for each port at a path of its own", path,
        file.path())));
  }
  return {};
}

VsockHost::~VsockHost() { hang_up(); }

void VsockHost::hang_up() {
  if (loop_ != nullptr) loop_->unwatch(std::exchange(watch_, 0));
  channel_ = PacketSocket(Fd(), {});
}

Result<void> VsockHost::serve(EventLoop& loop) {
  TRY(never_wait(channel_.fd()));
  loop_ = &loop;
  // One at a time: what the device wants comes in turn with all else.
  watch_ = TRY(loop.watch(channel_.fd(), EPOLLIN, [this](uint32_t) {
    if (!answer_one()) hang_up();
  }));
  return {};
}

void VsockHost::serve_until_end() {
  while (answer_one()) continue;
}

bool VsockHost::answer_one() {
  auto packet = channel_.receive();
  if (!packet && packet.error().code() == std::errc::resource_unavailable_try_again) return true;
  VsockDial dial;
  if (!packet || !*packet) return false;
  if ((*packet)->text.size() != sizeof(dial)) {
    log::error("vsock: the device asks for what there is not; no more sockets are connected");
    return false;
  }
  std::memcpy(&dial, (*packet)->text.data(), sizeof(dial));
  Fd socket;
  VsockDialed dialed{.number = dial.number, .error = ECONNREFUSED};
  if (dial.rule < targets_.size()) {
    const Target& target = targets_[dial.rule];
    dialed.error = connect_to(target.address, target.type, socket);
  }
  Packet answer{.text = {reinterpret_cast<const char*>(&dialed), sizeof(dialed)}, .fds = {}};
  if (dialed.error == 0) answer.fds.push_back(std::move(socket));
  // A device in order has room for as many answers as it has questions open.
  return channel_.send(answer).has_value();
}

std::vector<std::string> VsockHost::socket_files() const {
  std::vector<std::string> paths;
  for (const SocketFile& file : files_) paths.push_back(file.path());
  return paths;
}

void VsockHost::leave_files() {
  for (SocketFile& file : files_) file.leave();
  hang_up();
}

}  // namespace crosvm
