#include "devices/net/user/flow_ledger.h"

#include <algorithm>
#include <cstring>

namespace crosvm {
namespace {

uint64_t mix(uint64_t value) {
  value ^= value >> 32;
  value *= 0x9fb21c651e98df25;
  return value ^ value >> 29;
}

/// Of two numbers of a sequence, whether the second comes later (RFC 9293 §3.4).
bool is_behind(uint32_t first, uint32_t second) { return static_cast<int32_t>(second - first) > 0; }

}  // namespace

size_t FlowLedger::Hash::operator()(const Socket& socket) const {
  uint64_t halves[2];
  std::memcpy(halves, socket.first.bytes.data(), sizeof(halves));
  return mix(halves[0] + mix(halves[1] + socket.second));
}
size_t FlowLedger::Hash::operator()(const Ends& ends) const {
  return mix((*this)(ends.guest) + 3 * (*this)(ends.other));
}

// ---- connections

void FlowLedger::opened_tcp(int fd, const Ends& ends, std::optional<size_t> forward,
                            Clock::time_point now) {
  const auto [at, is_new] =
      connections_.try_emplace(fd, Connection{.ends = ends, .forward = forward, .used = now});
  if (!is_new) return;
  by_ends_[ends] = fd;
  if (!forward) return;
  ++inbound_;
  ++by_forward_[*forward];
}

FlowLedger::Connection* FlowLedger::find(const Ends& ends) {
  const auto fd = by_ends_.find(ends);
  if (fd == by_ends_.end()) return nullptr;
  const auto found = connections_.find(fd->second);
  return found == connections_.end() ? nullptr : &found->second;
}

bool FlowLedger::takes_segment(std::span<const uint8_t> frame, const IpFrame& ip,
                               Clock::time_point now) {
  Connection* connection = find(Ends::from_guest(ip));
  // Who asks again has not been answered, and is not in use.
  if (!connection || !connection->asked) return true;
  const TcpFields tcp = read_tcp(frame, ip);
  if ((ip.tcp_flags & kTcpAck) != 0 && tcp.acknowledged != connection->first) {
    connection->answered = true;
    connection->used = now;
  }
  const bool ends = (ip.tcp_flags & kTcpFin) != 0;
  if (ends) connection->ended = true;
  if (!connection->follows || (tcp.bytes == 0 && !ends)) return true;
  if (is_behind(connection->taken, tcp.sequence)) {
    if (connection->early >= limits_.early || early_ >= limits_.all_early) return false;
    ++connection->early;
    ++early_;
  }
  const uint32_t end = tcp.sequence + tcp.bytes + (ends ? 1 : 0);
  if (is_behind(connection->reached, end)) connection->reached = end;
  return true;
}

void FlowLedger::note_segment(std::span<const uint8_t> frame, const IpFrame& ip) {
  Connection* connection = find(Ends::to_guest(ip));
  if (!connection) return;
  const TcpFields tcp = read_tcp(frame, ip);
  if ((ip.tcp_flags & kTcpFin) != 0) connection->ended = true;
  if ((ip.tcp_flags & kTcpSyn) != 0) {
    connection->asked = true;
    connection->first = tcp.sequence;
  }
  // A reset may acknowledge what was never taken.
  if ((ip.tcp_flags & (kTcpAck | kTcpRst)) != kTcpAck) return;
  if (!std::exchange(connection->follows, true)) connection->reached = tcp.acknowledged;
  connection->taken = tcp.acknowledged;
  if (!is_behind(connection->taken, connection->reached)) {
    early_ -= std::exchange(connection->early, 0);
  }
}

std::vector<int> FlowLedger::idlest(std::optional<size_t> forward, size_t most,
                                    Clock::time_point now) const {
  // A port at its own bound gains nothing by the end of another's connection.
  const bool own = forward && by(*forward) >= limits_.per_forward;
  const bool inbound = forward && inbound_ >= limits_.inbound;
  const auto half = [](const Connection& each) { return !each.answered || each.ended; };
  std::vector<std::pair<std::pair<bool, Clock::time_point>, int>> found;
  for (const auto& [fd, connection] : connections_) {
    if ((own && connection.forward != forward) || (inbound && !connection.forward)) continue;
    // One whose SYN waits for the guest's Ethernet address cannot be ended.
    if (connection.forward && !connection.asked) continue;
    const auto patience = half(connection) ? limits_.half_silence : limits_.silence;
    if (now - connection.used < patience) continue;
    found.push_back({{!half(connection), connection.used}, fd});
  }
  std::ranges::sort(found);
  std::vector<int> descriptors;
  for (size_t i = 0; i < std::min(most, found.size()); ++i) descriptors.push_back(found[i].second);
  return descriptors;
}

// ---- datagrams

void FlowLedger::opened_udp(int fd, const Socket& guest, Clock::time_point now) {
  udp_[guest] = {fd, now};
  udp_of_[fd] = guest;
}

int FlowLedger::udp_fd(const Socket& guest) const {
  const auto found = udp_.find(guest);
  return found == udp_.end() ? -1 : found->second.fd;
}

void FlowLedger::note_datagram(const Ends& ends, Clock::time_point now) {
  if (const auto found = udp_.find(ends.guest); found != udp_.end()) found->second.used = now;
  if (peers_.size() >= kMostPeers && !peers_.contains(ends)) forget_peers(now);
  peers_[ends] = now;
}

bool FlowLedger::hears(const Ends& ends, Clock::time_point now) {
  const auto found = peers_.find(ends);
  if (found == peers_.end() || now - found->second >= kDatagramSilence) return false;
  found->second = now;
  if (const auto guest = udp_.find(ends.guest); guest != udp_.end()) guest->second.used = now;
  return true;
}

/// Those that are out of use, or else the half that has been silent longest.
void FlowLedger::forget_peers(Clock::time_point now) {
  std::erase_if(peers_, [&](const auto& each) { return now - each.second >= kDatagramSilence; });
  if (peers_.size() < kMostPeers) return;
  std::vector<Clock::time_point> used;
  for (const auto& [ends, when] : peers_) used.push_back(when);
  const auto middle = used.begin() + static_cast<ptrdiff_t>(used.size() / 2);
  std::ranges::nth_element(used, middle);
  std::erase_if(peers_, [&](const auto& each) { return each.second <= *middle; });
}

FlowLedger::Clock::duration FlowLedger::udp_silence(size_t share, Clock::time_point now) const {
  if (udp_.empty()) return {};
  std::vector<Clock::time_point> used;
  for (const auto& [guest, datagrams] : udp_) used.push_back(datagrams.used);
  const auto last = used.begin() + static_cast<ptrdiff_t>((used.size() - 1) / share);
  std::ranges::nth_element(used, last);
  return now - *last;
}

// ---- both

void FlowLedger::closed(int fd) {
  if (const auto found = connections_.find(fd); found != connections_.end()) {
    const Connection& connection = found->second;
    if (const auto ends = by_ends_.find(connection.ends);
        ends != by_ends_.end() && ends->second == fd) {
      by_ends_.erase(ends);
    }
    early_ -= connection.early;
    if (connection.forward) {
      --inbound_;
      --by_forward_[*connection.forward];
    }
    connections_.erase(found);
  } else if (const auto datagrams = udp_of_.find(fd); datagrams != udp_of_.end()) {
    if (udp_fd(datagrams->second) == fd) udp_.erase(datagrams->second);
    udp_of_.erase(datagrams);
  }
}

}  // namespace crosvm
