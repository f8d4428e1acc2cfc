#include "vmm/backend_socket_process.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "base/socket_pair.h"
#include "jail/helper_process.h"
#include "jail/worker_commands.h"
#include "vmm/backend_socket.h"

namespace crosvm {
namespace {

constexpr int kPauseMs = 1000;  // after a front-end that could not be taken
constexpr PacketLimits kPackets{.bytes = 8192, .fds = 1};

/// Nothing when nobody will take it any more.
Result<Fd> await_frontend(BackendSocket& socket, const Fd& owner) {
  while (true) {
    pollfd waits[] = {{.fd = socket.fd().get(), .events = POLLIN, .revents = 0},
                      {.fd = owner.get(), .events = POLLIN, .revents = 0}};
    if (::poll(waits, std::size(waits), -1) < 0 && errno != EINTR) {
      return fail(Error::from_errno("waiting for", "a front-end"));
    }
    if (waits[1].revents != 0) return Fd();
    if (waits[0].revents == 0) continue;
    auto frontend = socket.accept();
    if (frontend) return frontend;
    log::warn("{}", frontend.error().what());
    // It has gone again; or it waits, as what was lacking still may be.
    (void)::poll(&waits[1], 1, kPauseMs);
  }
}

void serve(PacketSocket& owner, const std::string& path) {
  auto asked = owner.receive();
  if (!asked || !*asked) return;
  auto socket = BackendSocket::listen(path);
  const auto answer =
      socket ? Result<std::string>("") : Result<std::string>(fail(Error(socket.error())));
  if (!owner.send(encode_command_answer(answer)) || !socket) return;
  auto frontend = await_frontend(*socket, owner.fd());
  if (!frontend) return log::error("{}", frontend.error().what());
  Packet packet{.text = "frontend", .fds = {}};
  if (*frontend) packet.fds.push_back(*std::move(frontend));
  if (!packet.fds.empty()) (void)owner.send(packet);  // else nobody is there to take it
}

}  // namespace

BackendSocketProcess::BackendSocketProcess(Fd channel) : channel_(std::move(channel), kPackets) {}

Result<BackendSocketProcess> BackendSocketProcess::start(const std::string& path) {
  FdPair pair = TRY(make_socket_pair(SOCK_SEQPACKET, "a process that listens"));
  PacketSocket theirs(std::move(pair.theirs), kPackets);
  TRY(start_helper(theirs.fd(), "listens for a front-end", [&] { serve(theirs, path); }));
  return BackendSocketProcess(std::move(pair.ours));
}

Result<void> BackendSocketProcess::listen() {
  TRY(channel_.send({.text = "listen", .fds = {}}));
  auto packet = TRY(channel_.receive());
  if (!packet) return fail(Error(std::errc::broken_pipe, "the process that listens has died"));
  TRY(TRY(decode_command_answer(*packet)));
  return {};
}

Result<Fd> BackendSocketProcess::take() {
  auto packet = TRY(channel_.receive());
  if (packet && packet->fds.size() == 1) return std::move(packet->fds.front());
  return fail(Error(std::errc::broken_pipe, "the process that listens has died"));
}

}  // namespace crosvm
