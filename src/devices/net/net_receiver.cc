#include "devices/net/net_receiver.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "devices/net/net_header.h"

namespace crosvm {
namespace {

constexpr size_t kPacketsInATurn = 64;
/// Chains held for a packet before it is known how long it is.
constexpr size_t kMostHeldAhead = 64;
/// Pieces of a room that are the guest's: a system call takes 1024.
constexpr size_t kMostPieces = 512;
/// How long a packet waits for a driver that has too few buffers for it at the moment. A driver may
/// wait for a packet itself before it makes more available.
constexpr std::chrono::milliseconds kPatience{100};
constexpr uint64_t kNumBuffersAt = offsetof(NetHeader, num_buffers);

}  // namespace

NetReceiver::NetReceiver(EventLoop& loop, DeviceEvents& events, NetPort& port)
    : loop_(loop),
      port_(port),
      spill_(kNetHeaderBytes + kMostPacketBytes),
      turns_(loop, events, [this]() -> Result<Turn> {
        auto turn = serve();
        if (!turn) port_.listen(false);  // of a broken ring nobody takes more
        return turn;
      }) {}

NetReceiver::~NetReceiver() { cancel_timer(); }

Result<void> NetReceiver::start(Virtqueue queue, uint64_t features) {
  mergeable_ = (features & net_feature(VIRTIO_NET_F_MRG_RXBUF)) != 0;
  features_ = features;
  hint_ = 1;
  return turns_.start(std::move(queue));
}

RingPosition NetReceiver::stop() {
  if (!turns_.running()) return {};  // it could not be listened to
  port_.listen(false);
  undo_held();
  packet_ = 0;
  cancel_timer();
  return turns_.stop();
}

/// In the order opposite to that of popping.
void NetReceiver::undo_held() {
  while (!held_.empty()) {
    turns_.queue().undo_pop(std::move(held_.back()));
    held_.pop_back();
  }
  held_bytes_ = 0;
}

Result<NetReceiver::Turn> NetReceiver::serve() {
  size_t left = kPacketsInATurn;
  for (; left > 0; --left) {
    if (packet_ == 0 && !TRY(take_packet())) break;
    if (!TRY(deliver())) break;
  }
  pace_.tell(turns_.queue());
  return left > 0 ? Turn::kDone : Turn::kMore;
}

/// Receives the next packet. Returns whether there was one.
Result<bool> NetReceiver::take_packet() {
  if (!TRY(hold(hint_)) && held_.empty()) {
    port_.listen(false);  // until the driver kicks
    return false;
  }
  lay_out_room();
  const std::optional<size_t> got = port_.receive(ChainBuffers(room_));
  port_.listen(true);
  if (!got) return false;
  packet_ = std::min<size_t>(*got, ChainBuffers(room_).size());
  return true;
}

/// Whether there are so many now.
Result<bool> NetReceiver::hold(size_t chains) {
  while (held_.size() < chains) {
    if (!TRY(hold_one())) return false;
  }
  return true;
}

/// Returns whether the driver had one more.
Result<bool> NetReceiver::hold_one() {
  auto chain = TRY(turns_.queue().pop());
  if (!chain) return false;
  held_bytes_ += chain->device_writable().size();
  held_.push_back(*std::move(chain));
  return true;
}

void NetReceiver::lay_out_room() {
  room_.clear();
  in_chains_ = 0;
  for (const DescriptorChain& chain : held_) {
    for (const GuestSlice& slice : chain.device_writable().slices()) {
      if (room_.size() == kMostPieces) break;
      room_.push_back(slice);
      in_chains_ += slice.size();
    }
  }
  room_.push_back(GuestSlice::over(spill_));
}

/// Gives the packet to the driver, or drops it. Returns whether it is gone: else it waits.
Result<bool> NetReceiver::deliver() {
  if (packet_ <= kNetHeaderBytes || !TRY(is_wanted())) {
    packet_ = 0;  // the chains are for the next one
    return true;
  }
  if (!TRY(find_room())) return packet_ == 0;
  TRY(hand_over());
  packet_ = 0;
  return true;
}

Result<bool> NetReceiver::is_wanted() const {
  // It may have waited in a tap since there was a driver that knew more.
  if (!may_be_received(TRY(ChainBuffers(room_).read<NetHeader>()), features_)) return false;
  if (filter_.has(NetFilter::kPromiscuous)) return true;
  std::array<std::byte, NetFilter::kLooksAt> start;
  const auto bytes = std::span(start).first(std::min(start.size(), packet_ - kNetHeaderBytes));
  TRY(ChainBuffers(room_).read_bytes(kNetHeaderBytes, bytes));
  return filter_.accepts(bytes);
}

/// Whether the held chains have room for all of the packet, after more have been popped where they
/// help. When not, the packet waits or has been dropped.
Result<bool> NetReceiver::find_room() {
  if (!mergeable_) {
    if (held_bytes_ >= packet_) return true;
    drop("is longer than the driver's buffer");
    return false;
  }
  while (held_bytes_ < packet_) {
    if (TRY(hold_one())) continue;
    if (held_.size() >= turns_.queue().size()) {
      drop("is longer than all the driver's buffers");
    } else {
      wait_for_chains();
    }
    return false;
  }
  return true;
}

void NetReceiver::wait_for_chains() {
  port_.listen(false);
  if (timer_ != 0) return;
  timer_ = loop_.after(kPatience, [this] {
    timer_ = 0;
    drop("is longer than the driver's buffers");
    turns_.run();
  });
}

void NetReceiver::cancel_timer() {
  if (timer_ != 0) loop_.cancel(std::exchange(timer_, 0));
}

void NetReceiver::drop(const char* why) {
  if (packet_ != 0 && limit_.allows()) {
    log::warn("a packet of {} bytes for the guest is dropped: it {}", packet_ - kNetHeaderBytes,
              why);
  }
  packet_ = 0;
  cancel_timer();
}

/// The packet, for which there is room, becomes the driver's.
Result<void> NetReceiver::hand_over() {
  cancel_timer();
  used_.clear();
  slices_.clear();
  uint64_t left = packet_;
  size_t count = 0;
  for (; left > 0 || count == 0; ++count) {
    const ChainBuffers buffers = held_[count].device_writable();
    slices_.insert(slices_.end(), buffers.slices().begin(), buffers.slices().end());
    const uint64_t part = std::min<uint64_t>(left, buffers.size());
    used_.push_back({.chain = std::move(held_[count]), .written = static_cast<uint32_t>(part)});
    held_bytes_ -= buffers.size();
    left -= part;
  }
  held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(count));
  const ChainBuffers all(slices_);
  if (packet_ > in_chains_) {
    const auto more = std::span(spill_).first(packet_ - in_chains_);
    TRY(all.write_bytes(in_chains_, more));
  }
  // A tap says what it knows of a checksum whether it was asked or not.
  if ((features_ & net_feature(VIRTIO_NET_F_GUEST_CSUM)) == 0) {
    TRY(all.write<uint8_t>(offsetof(NetHeader, flags), 0));  // §5.1.6.4.1
  }
  TRY(all.write(kNumBuffersAt, static_cast<uint16_t>(count)));
  turns_.queue().push_used_together(used_);
  pace_.moved(turns_.queue(), packet_);
  hint_ = std::min(count, kMostHeldAhead);
  return {};
}

}  // namespace crosvm
