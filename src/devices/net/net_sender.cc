#include "devices/net/net_sender.h"

#include <utility>

#include "base/log.h"
#include "devices/net/net_header.h"

namespace crosvm {
namespace {

constexpr size_t kPacketsInATurn = 64;

/// What lies behind the header.
void cut_header(const ChainBuffers& buffers, std::vector<GuestSlice>& packet) {
  packet.clear();
  size_t skip = kNetHeaderBytes;
  for (const GuestSlice& slice : buffers.slices()) {
    if (skip >= slice.size()) {
      skip -= slice.size();
      continue;
    }
    auto rest = slice.sub(skip, slice.size() - skip);
    CHECK(rest.has_value());
    packet.push_back(*rest);
    skip = 0;
  }
}

}  // namespace

NetSender::NetSender(EventLoop& loop, DeviceEvents& events, NetPort& port)
    : port_(port), turns_(loop, events, [this] { return serve(); }) {}

Result<void> NetSender::start(Virtqueue queue, uint64_t features) {
  features_ = features;
  return turns_.start(std::move(queue));
}

Result<NetSender::Turn> NetSender::serve() {
  Virtqueue& queue = turns_.queue();
  size_t left = kPacketsInATurn;
  for (; left > 0; --left) {
    auto chain = TRY(queue.pop());
    if (!chain) break;
    if (send(*chain) == NetPort::Sent::kLater) {
      queue.undo_pop(*std::move(chain));  // the port calls `sendable`
      break;
    }
    const uint64_t bytes = chain->device_readable().size();
    queue.push_used(*std::move(chain), 0);
    pace_.moved(queue, bytes);
  }
  pace_.tell(queue);
  return left > 0 ? Turn::kDone : Turn::kMore;
}

/// A packet that cannot be sent is as good as lost on the way: the driver gets its buffer back.
NetPort::Sent NetSender::send(const DescriptorChain& chain) {
  const ChainBuffers buffers = chain.device_readable();
  const auto header = buffers.read<NetHeader>();
  if (!header) {
    refuse(header.error().what());
    return NetPort::Sent::kDone;
  }
  const auto checked = checked_net_header(*header, buffers.size() - kNetHeaderBytes, features_);
  if (!checked) {
    refuse(checked.error().what());
    return NetPort::Sent::kDone;
  }
  cut_header(buffers, packet_);
  return port_.send(*checked, ChainBuffers(packet_));
}

void NetSender::refuse(const std::string& why) {
  if (limit_.allows()) log::warn("a packet of the guest is refused: {}", why);
}

}  // namespace crosvm
