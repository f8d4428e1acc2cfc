#include "devices/vsock/vsock_connections.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

/// What the guest may have on its way to a socket: much while there are few connections, so that
/// all that is promised stays below 64 MiB.
constexpr uint32_t kLargeRoom = 256 << 10;
constexpr uint32_t kSmallRoom = 32 << 10;
constexpr uint64_t kLargeRooms = 32 << 20;

/// Ports of the host that its own connections come from; rules rarely have such.
constexpr uint32_t kFirstPort = 1U << 30;
constexpr uint32_t kLastPort = (1U << 31) - 1;

/// A guest whose driver runs answers at once, whether somebody listens there or not.
constexpr std::chrono::seconds kOfferPatience{10};

VsockHeader reset_of(uint64_t guest_cid, uint64_t host_cid, VsockPorts ports, uint16_t type) {
  return {.src_cid = host_cid,
          .dst_cid = guest_cid,
          .src_port = ports.host,
          .dst_port = ports.guest,
          .type = type,
          .op = VIRTIO_VSOCK_OP_RST};
}

uint16_t type_of(bool seqpacket) {
  return seqpacket ? VIRTIO_VSOCK_TYPE_SEQPACKET : VIRTIO_VSOCK_TYPE_STREAM;
}

}  // namespace

VsockConnections::VsockConnections(EventLoop& loop, const VsockConfig& config,
                                   std::function<void()> packets_wait)
    : loop_(loop),
      config_(config),
      packets_wait_(std::move(packets_wait)),
      next_port_(kFirstPort) {}

VsockConnections::~VsockConnections() {
  for (auto& [number, entry] : entries_) loop_.cancel(entry.timer);
}

Result<std::unique_ptr<VsockConnections>> VsockConnections::create(
    EventLoop& loop, const VsockConfig& config, Fd dialer, std::vector<Fd> listeners,
    std::function<void()> packets_wait) {
  std::unique_ptr<VsockConnections> made(
      new VsockConnections(loop, config, std::move(packets_wait)));
  VsockConnections* raw = made.get();
  made->dialer_ =
      TRY(VsockDialer::create(loop, std::move(dialer), [raw](uint64_t number, Result<Fd> socket) {
        raw->dialed(number, std::move(socket));
      }));
  made->listeners_ = std::make_unique<VsockListeners>(
      loop, std::move(listeners), [raw](size_t listener, Fd socket) {
        raw->accepted(raw->config_.listen[listener], std::move(socket));
      });
  return made;
}

// ---- the table

VsockConnections::Entry* VsockConnections::find(VsockPorts ports) {
  const auto found = by_ports_.find(ports.key());
  return found == by_ports_.end() ? nullptr : find(found->second);
}

VsockConnections::Entry* VsockConnections::find(uint64_t number) {
  const auto found = entries_.find(number);
  return found == entries_.end() ? nullptr : &found->second;
}

VsockConnections::Entry* VsockConnections::find_over() {
  for (auto& [number, entry] : entries_) {
    if (!entry.forgotten && entry.connection->host_is_done()) return &entry;
  }
  return nullptr;
}

bool VsockConnections::make_room() {
  if (!is_full()) return true;
  Entry* over = find_over();
  if (over == nullptr) return false;
  reset(*over, "the guest does not let go of what the host has closed");
  return true;
}

/// Programs for which there is no room wait where they are.
void VsockConnections::update_listeners() {
  listeners_->listen(running_ && (!is_full() || find_over() != nullptr));
}

VsockConnections::Entry& VsockConnections::add(VsockPorts ports, bool seqpacket, bool from_host) {
  const uint32_t room = promised_ + kLargeRoom <= kLargeRooms ? kLargeRoom : kSmallRoom;
  promised_ += room;
  const uint64_t number = next_number_++;
  by_ports_[ports.key()] = number;
  Entry& entry = entries_[number];
  entry.number = number;
  entry.connection =
      std::make_unique<VsockConnection>(loop_, VsockConnection::Options{.guest_cid = config_.cid,
                                                                        .ports = ports,
                                                                        .seqpacket = seqpacket,
                                                                        .from_host = from_host,
                                                                        .buf_alloc = room});
  if (is_full()) update_listeners();
  return entry;
}

void VsockConnections::remove(uint64_t number) {
  const auto found = entries_.find(number);
  Entry& entry = found->second;
  const VsockConnection::Options& options = entry.connection->options();
  if (!entry.forgotten) by_ports_.erase(options.ports.key());
  if (staging_.owner == entry.connection.get()) staging_ = {};
  promised_ -= options.buf_alloc;
  if (entry.queued) std::erase(ready_, number);
  loop_.cancel(entry.timer);
  dialer_->forget(number);
  const bool was_full = is_full();
  entries_.erase(found);
  if (was_full) update_listeners();
}

void VsockConnections::let_go(Entry& entry) {
  if (!entry.connection->has_rest()) return remove(entry.number);
  by_ports_.erase(entry.connection->options().ports.key());
  entry.forgotten = true;
  if (staging_.owner == entry.connection.get()) staging_ = {};
}

void VsockConnections::reset(Entry& entry, std::string_view why) {
  const VsockConnection::Options& options = entry.connection->options();
  if (log_limit_.allows()) {
    log::info("vsock: the connection of guest port {} and host port {} is reset: {}",
              options.ports.guest, options.ports.host, why);
  }
  if (entry.connection->was_told()) {
    replies_.push_back(
        reset_of(config_.cid, VsockConfig::kHostCid, options.ports, type_of(options.seqpacket)));
  }
  remove(entry.number);
}

void VsockConnections::reset() {
  replies_.clear();
  ready_.clear();
  staging_ = {};
  std::vector<uint64_t> numbers;
  for (const auto& [number, entry] : entries_) {
    if (!entry.forgotten) numbers.push_back(number);
  }
  for (uint64_t number : numbers) let_go(entries_.at(number));
}

// ---- packets of the guest

void VsockConnections::refuse(const VsockHeader& header) {
  replies_.push_back(reset_of(header.src_cid, header.dst_cid,
                              {.guest = header.src_port, .host = header.dst_port}, header.type));
}

void VsockConnections::take_packet(const ChainBuffers& chain) {
  auto header = chain.read<VsockHeader>();
  if (!header || header->src_cid != config_.cid) {
    if (log_limit_.allows()) {
      log::warn("vsock: a packet {} is dropped",
                header ? "from another context ID than the guest's" : "shorter than a header");
    }
    return;
  }
  Entry* entry = header->dst_cid == VsockConfig::kHostCid
                     ? find({.guest = header->src_port, .host = header->dst_port})
                     : nullptr;
  if (header->op == VIRTIO_VSOCK_OP_RST) {
    if (entry == nullptr) return;
    // It closed in order when it had said that it has sent all: then all of that counts.
    return entry->connection->guest_sent_all() ? let_go(*entry) : remove(entry->number);
  }
  if (entry == nullptr) {
    const bool begins =
        header->op == VIRTIO_VSOCK_OP_REQUEST && header->dst_cid == VsockConfig::kHostCid;
    return begins ? begin(*header) : refuse(*header);
  }
  if (header->type != type_of(entry->connection->options().seqpacket)) {
    return reset(*entry, "a packet of another type");
  }
  if (header->op == VIRTIO_VSOCK_OP_REQUEST) return reset(*entry, "it was asked for once more");
  if (auto taken = entry->connection->take(*header, chain); !taken) {
    return reset(*entry, taken.error().what());
  }
  if (entry->connection->guest_is_done()) {
    refuse(*header);  // the answer to the end is a reset, virtio 1.3 §5.10.6.6
    return let_go(*entry);
  }
  after_change(*entry);
}

void VsockConnections::begin(const VsockHeader& header) {
  const bool seqpacket = header.type == VIRTIO_VSOCK_TYPE_SEQPACKET;
  const bool known = seqpacket ? seqpacket_ : header.type == VIRTIO_VSOCK_TYPE_STREAM;
  const uint32_t port = header.dst_port;
  const auto rule = std::ranges::find(config_.connect, port, &VsockRule::port);
  if (!known || rule == config_.connect.end() || rule->seqpacket != seqpacket) {
    if (log_limit_.allows()) {
      log::info("vsock: the guest may not connect to {} port {}: no `connect` names it",
                seqpacket ? "seqpacket" : "stream", port);
    }
    return refuse(header);
  }
  if (!make_room()) {
    if (log_limit_.allows()) {
      log::warn("vsock: the guest has {} connections, and gets no more", kMost);
    }
    return refuse(header);
  }
  Entry& entry = add({.guest = header.src_port, .host = port}, seqpacket, false);
  entry.connection->take_credit(header);
  dialer_->dial(entry.number, static_cast<uint32_t>(rule - config_.connect.begin()));
}

void VsockConnections::dialed(uint64_t number, Result<Fd> socket) {
  Entry* entry = find(number);
  if (entry == nullptr) return;
  if (socket) {
    start(*entry, std::move(*socket));
  } else {
    reset(*entry, socket.error().what());
  }
  packets_wait_();
}

// ---- connections of the host

std::optional<VsockPorts> VsockConnections::free_ports(uint32_t guest_port) {
  for (size_t tries = 0; tries <= kMost; ++tries) {
    const VsockPorts ports{.guest = guest_port, .host = next_port_};
    next_port_ = next_port_ == kLastPort ? kFirstPort : next_port_ + 1;
    if (!by_ports_.contains(ports.key())) return ports;
  }
  return {};
}

void VsockConnections::accepted(const VsockRule& rule, Fd socket) {
  const auto ports = free_ports(rule.port);
  if ((rule.seqpacket && !seqpacket_) || !ports || !make_room()) {
    if (log_limit_.allows()) {
      log::warn("vsock: a connection to guest port {} is closed: {}", rule.port,
                rule.seqpacket && !seqpacket_ ? "the guest's driver knows no sequenced packets"
                                              : "there are too many");
    }
    return;
  }
  Entry& entry = add(*ports, rule.seqpacket, true);
  const uint64_t number = entry.number;
  entry.timer = loop_.after(kOfferPatience, [this, number] {
    Entry* offered = find(number);
    if (offered == nullptr) return;
    offered->timer = 0;
    if (offered->forgotten || offered->connection->stands()) return;
    reset(*offered, "the guest does not answer");
    packets_wait_();
  });
  start(entry, std::move(socket));
  packets_wait_();
}

// ---- both

void VsockConnections::start(Entry& entry, Fd socket) {
  const uint64_t number = entry.number;
  auto started = entry.connection->start(
      std::move(socket), [this, number](uint32_t events) { socket_ready(number, events); });
  if (!started) return reset(entry, started.error().what());
  after_change(entry);
}

void VsockConnections::socket_ready(uint64_t number, uint32_t events) {
  Entry* entry = find(number);
  if (entry == nullptr) return;
  auto done = entry->connection->socket_ready(events);
  if (entry->forgotten) {
    if (!done || !entry->connection->has_rest()) remove(number);
    return;
  }
  if (!done) {
    reset(*entry, done.error().what());
  } else {
    after_change(*entry);
  }
  if (has_packet()) packets_wait_();
}

void VsockConnections::after_change(Entry& entry) {
  if (entry.connection->has_packet()) enqueue(entry);
}

void VsockConnections::enqueue(Entry& entry) {
  if (std::exchange(entry.queued, true)) return;
  ready_.push_back(entry.number);
}

// ---- packets for the guest

uint32_t VsockConnections::write_packet(const ChainBuffers& room) {
  if (room.size() < sizeof(VsockHeader)) return 0;
  if (!replies_.empty()) {
    CHECK(room.write(0, replies_.front()).has_value());
    replies_.pop_front();
    return sizeof(VsockHeader);
  }
  while (!ready_.empty()) {
    const uint64_t number = ready_.front();
    ready_.pop_front();
    Entry* entry = find(number);
    if (entry == nullptr || entry->forgotten) continue;
    entry->queued = false;
    auto written = entry->connection->write_packet(room, staging_);
    if (!written) {
      reset(*entry, written.error().what());
      return write_packet(room);
    }
    const bool staged = staging_.owner == entry->connection.get();
    const bool has_more = staged || entry->connection->has_packet();
    entry->queued = has_more;
    if (has_more && (staged || *written == 0)) {
      ready_.push_front(number);  // the rest of its message comes first, as does what found no room
    } else if (has_more) {
      ready_.push_back(number);
    }
    if (has_more && *written == 0) return 0;
    if (is_full() && entry->connection->host_is_done()) update_listeners();
    if (*written > 0) return *written;
  }
  return 0;
}

}  // namespace crosvm
