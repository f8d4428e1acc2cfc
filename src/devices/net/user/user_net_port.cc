#include "devices/net/user/user_net_port.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "devices/net/user/own_frames.h"

namespace crosvm {
namespace {

std::string_view protocol_name(uint8_t protocol) {
  switch (protocol) {
    case kProtocolTcp:
      return "tcp";
    case kProtocolUdp:
      return "udp";
    default:
      return "icmp";
  }
}

}  // namespace

UserNetPort::UserNetPort(EventLoop& loop, const UserNetConfig& config)
    : loop_(loop),
      config_(config),
      gate_(config),
      echo_(loop, [this](std::span<const uint8_t> frame) { give(frame); }) {}

UserNetPort::~UserNetPort() = default;

Result<std::unique_ptr<UserNetPort>> UserNetPort::create(EventLoop& loop,
                                                         const UserNetConfig& config,
                                                         FlowLedger::Limits limits) {
  std::unique_ptr<UserNetPort> port(new UserNetPort(loop, config));
  port->stack_ =
      TRY(SlirpStack::create(loop, port->config_, limits, [raw = port.get()](auto frame) {
        raw->gate_.note_for_guest(frame);
        raw->give(frame);
      }));
  return port;
}

// ---- to the guest

void UserNetPort::give(std::span<const uint8_t> frame) {
  if (frame.size() > kMostPacketBytes || queued_bytes_ + frame.size() > kQueueBytes) return;
  queue_.emplace_back(frame.begin(), frame.end());
  queued_bytes_ += frame.size();
  if (queued_bytes_ > kHoldBytes && stack_) stack_->hold(true);
  wake();
}

void UserNetPort::listen(bool on) {
  listening_ = on;
  wake();
}

void UserNetPort::wake() {
  if (!listening_ || queue_.empty() || std::exchange(waking_, true)) return;
  loop_.post([this, still = std::weak_ptr(alive_)] {
    if (still.expired()) return;
    waking_ = false;
    if (!listening_ || queue_.empty()) return;
    events_.receivable();
    wake();
  });
}

std::optional<size_t> UserNetPort::receive(const ChainBuffers& room) {
  if (queue_.empty()) return std::nullopt;
  const std::vector<uint8_t> frame = std::move(queue_.front());
  queue_.pop_front();
  queued_bytes_ -= frame.size();
  if (queued_bytes_ <= kHoldBytes / 2) stack_->hold(false);
  if (room.size() < kNetHeaderBytes) return 0;
  const size_t fits = std::min<size_t>(frame.size(), room.size() - kNetHeaderBytes);
  CHECK(room.write(0, NetHeader{}));
  CHECK(room.write_bytes(kNetHeaderBytes, std::as_bytes(std::span(frame)).first(fits)));
  return kNetHeaderBytes + fits;
}

// ---- from the guest

NetPort::Sent UserNetPort::send(const NetHeader&, const ChainBuffers& packet) {
  // A copy of our own: the guest may write to its memory while we look.
  taken_.resize(std::min<uint64_t>(packet.size(), kMostPacketBytes));
  CHECK(packet.read_bytes(0, std::as_writable_bytes(std::span(taken_))));
  take(taken_);
  return Sent::kDone;
}

void UserNetPort::take(std::span<uint8_t> frame) {
  const GuestGate::Judgement judgement = gate_.judge(frame);
  switch (judgement.way) {
    case GuestGate::Way::kPass:
      clear_urgent(frame, judgement.ip);
      if (!stack_->input(frame, judgement)) deny(frame, judgement.ip, true);
      return;
    case GuestGate::Way::kEcho:
      if (!echo_.send(frame, judgement.ip)) deny(frame, judgement.ip, false);
      return;
    case GuestGate::Way::kIgnore:
      return;
    case GuestGate::Way::kRefuse:
      if (limit_.allows()) log::debug("user network: a frame is refused: {}", judgement.why);
      return;
    case GuestGate::Way::kDeny:
      if (denied_.allows()) {
        log::warn("user network: {} to {} port {} is denied; allow=[…] may let it through",
                  protocol_name(judgement.ip.protocol), judgement.ip.destination.to_text(),
                  judgement.ip.destination_port);
      }
      return deny(frame, judgement.ip, false);
  }
}

void UserNetPort::deny(std::span<const uint8_t> frame, const IpFrame& ip, bool full) {
  if (full && limit_.allows()) {
    log::warn("user network: the guest has {} connections and {} sockets for datagrams; no more",
              flows().tcp(), flows().udp());
  }
  give(denial_of(frame, ip, config_));
}

}  // namespace crosvm
