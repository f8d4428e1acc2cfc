#include "jail/broker_process.h"

#include <sys/socket.h>

#include <utility>

#include "base/socket_pair.h"
#include "jail/helper_process.h"
#include "jail/worker_order.h"

namespace crosvm {

BrokerProcess::BrokerProcess(Fd channel) : channel_(std::move(channel), kWorkerPackets) {}

Result<std::unique_ptr<BrokerProcess>> BrokerProcess::start(std::unique_ptr<FileBroker> broker) {
  FdPair pair = TRY(make_socket_pair(SOCK_SEQPACKET, "a process that opens files"));
  PacketSocket theirs(std::move(pair.theirs), kWorkerPackets);
  BrokerDesk desk(std::move(broker), false);
  TRY(start_helper(theirs.fd(), "opens files", [&] {
    for (;;) {
      auto packet = theirs.receive();
      if (!packet || !*packet || !theirs.send(desk.answer(**packet))) return;
    }
  }));
  return std::unique_ptr<BrokerProcess>(new BrokerProcess(std::move(pair.ours)));
}

}  // namespace crosvm
