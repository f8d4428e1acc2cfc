#include "jail/broker_process.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/socket_pair.h"
#include "jail/worker_order.h"

namespace crosvm {
namespace {

/// All else that it has from its parent is closed: a front-end must see its back-end go.
[[noreturn]] void serve(Fd channel, std::unique_ptr<FileBroker> broker) {
  const unsigned kept = static_cast<unsigned>(channel.get());
  if (kept > STDERR_FILENO + 1) (void)::close_range(STDERR_FILENO + 1, kept - 1, 0);
  (void)::close_range(kept + 1, ~0U, 0);
  PacketSocket socket(std::move(channel), kWorkerPackets);
  BrokerDesk desk(std::move(broker), false);
  for (;;) {
    auto packet = socket.receive();
    if (!packet || !*packet || !socket.send(desk.answer(**packet))) ::_exit(0);
  }
}

}  // namespace

BrokerProcess::BrokerProcess(Fd channel) : channel_(std::move(channel), kWorkerPackets) {}

Result<std::unique_ptr<BrokerProcess>> BrokerProcess::start(std::unique_ptr<FileBroker> broker) {
  FdPair pair = TRY(make_socket_pair(SOCK_SEQPACKET, "a process that opens files"));
  // By way of a process in between, so that nobody here has to wait for its end.
  const pid_t between = ::fork();
  if (between < 0) return fail(Error::from_errno("starting", "a process that opens files"));
  if (between == 0) {
    pair.ours = {};
    const pid_t child = ::fork();
    if (child == 0) serve(std::move(pair.theirs), std::move(broker));
    ::_exit(child < 0 ? 1 : 0);
  }
  int status = 0;
  while (::waitpid(between, &status, 0) < 0 && errno == EINTR) continue;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return fail(Error(std::errc::resource_unavailable_try_again,
                      "starting a process that opens files: no further process can be started"));
  }
  return std::unique_ptr<BrokerProcess>(new BrokerProcess(std::move(pair.ours)));
}

}  // namespace crosvm
