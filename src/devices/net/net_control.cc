#include "devices/net/net_control.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace crosvm {
namespace {

constexpr int kCommandsInATurn = 64;
constexpr size_t kCommandHeader = 2;  // class and command

/// A value that is all of `data`. Nothing: it has another length.
template <GuestPod T>
std::optional<T> whole(const ChainBuffers& data) {
  if (data.size() != kCommandHeader + sizeof(T)) return std::nullopt;
  auto value = data.read<T>(kCommandHeader);
  if (!value) return std::nullopt;
  return *value;
}

/// Reads the table at `offset`, and moves that behind it. Returns whether it lies in `data`.
bool read_table(const ChainBuffers& data, uint64_t& offset, NetFilter::Table& table) {
  const auto entries = data.read<uint32_t>(offset);
  if (!entries) return false;
  offset += sizeof(uint32_t);
  const uint64_t bytes = uint64_t{*entries} * sizeof(MacAddress);
  if (offset > data.size() || bytes > data.size() - offset) return false;
  if (*entries > NetFilter::kMostAddresses) {
    table.count = NetFilter::kMostAddresses + 1;
  } else {
    table.count = static_cast<uint8_t>(*entries);
    const auto to = std::as_writable_bytes(std::span(table.addresses)).first(bytes);
    if (!data.read_bytes(offset, to)) return false;
  }
  offset += bytes;
  return true;
}

}  // namespace

NetControl::NetControl(const MacAddress& mac, uint16_t most_pairs, Actions actions)
    : mac_(mac), most_pairs_(most_pairs), actions_(std::move(actions)) {
  filter_.mac = mac_;
}

void NetControl::set_features(uint64_t features) {
  features_ = features;
  // Tags are looked at only when the driver can say which it wants (§5.1.6.5.3).
  filter_.by_vlan = has(VIRTIO_NET_F_CTRL_VLAN) ? 1 : 0;
  apply_all();
}

void NetControl::reset() {
  features_ = 0;
  filter_ = {};
  filter_.mac = mac_;
  pairs_ = 1;
  chosen_offloads_.reset();
  apply_all();
}

void NetControl::apply_all() {
  actions_.filter(filter_);
  show_mac();
  actions_.pairs(pairs_);
  actions_.offloads(offloads());
}

/// A driver that knows of the address there finds its own (§5.1.6.5.2).
void NetControl::show_mac() const { actions_.mac(has(VIRTIO_NET_F_MAC) ? filter_.mac : mac_); }

uint64_t NetControl::offloads() const {
  return chosen_offloads_.value_or(~uint64_t{0}) & features_ & kNetGuestOffloads;
}

void NetControl::save_state(DeviceFields& to) const {
  to.set(kTagFilter, filter_);
  to.set(kTagPairs, pairs_);
  if (chosen_offloads_) to.set(kTagOffloads, *chosen_offloads_);
}

Result<void> NetControl::load_state(const DeviceFields& from) {
  const auto filter = TRY(from.get<NetFilter>(kTagFilter));
  const auto pairs = TRY(from.get<uint16_t>(kTagPairs));
  std::optional<uint64_t> chosen;
  if (from.all().contains(kTagOffloads)) chosen = TRY(from.get<uint64_t>(kTagOffloads));
  if (pairs == 0 || pairs > most_pairs_) {
    return fail(Error::invalid(
        format_text("the saved card uses {} queue pairs; this one has {}", pairs, most_pairs_)));
  }
  filter_ = filter;
  pairs_ = pairs;
  chosen_offloads_ = chosen;
  apply_all();
  return {};
}

Result<bool> NetControl::serve(Virtqueue& queue) {
  int left = kCommandsInATurn;
  for (; left > 0; --left) {
    auto taken = TRY(take(queue));
    if (!taken) break;
    queue.push_used(std::move(taken->chain), taken->written);
  }
  queue.signal_used_if_needed();
  return left == 0;
}

Result<std::optional<UsedChain>> NetControl::take(Virtqueue& queue) {
  auto chain = TRY(queue.pop());
  if (!chain) return std::nullopt;
  const uint32_t written = TRY(answer(*chain));
  return UsedChain{.chain = *std::move(chain), .written = written};
}

Result<uint32_t> NetControl::answer(const DescriptorChain& chain) {
  const ChainBuffers data = chain.device_readable();
  const ChainBuffers room = chain.device_writable();
  std::array<uint8_t, kCommandHeader> header{};
  const bool whole_header = data.size() >= header.size();
  if (whole_header) TRY(data.read_bytes(0, std::as_writable_bytes(std::span(header))));
  const bool right = whole_header && handle(header[0], header[1], data);
  if (right) actions_.obeyed();
  if (!right && limit_.allows()) {
    log::warn("the driver's command {} of class {}, {} bytes, is refused", header[1], header[0],
              data.size());
  }
  if (room.size() == 0) return 0;
  TRY(room.write<uint8_t>(0, right ? VIRTIO_NET_OK : VIRTIO_NET_ERR));
  return 1;
}

bool NetControl::handle(uint8_t kind, uint8_t command, const ChainBuffers& data) {
  switch (kind) {
    case VIRTIO_NET_CTRL_RX:
      return handle_mode(command, data);
    case VIRTIO_NET_CTRL_MAC:
      return handle_mac(command, data);
    case VIRTIO_NET_CTRL_VLAN:
      return handle_vlan(command, data);
    case VIRTIO_NET_CTRL_ANNOUNCE:
      if (!has(VIRTIO_NET_F_GUEST_ANNOUNCE) || command != VIRTIO_NET_CTRL_ANNOUNCE_ACK ||
          data.size() != kCommandHeader) {
        return false;
      }
      actions_.announced();
      return true;
    case VIRTIO_NET_CTRL_MQ:
      return handle_pairs(command, data);
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
      return handle_offloads(command, data);
    default:
      return false;
  }
}

bool NetControl::handle_mode(uint8_t command, const ChainBuffers& data) {
  // In the order of the commands (§5.1.6.5.1).
  static constexpr std::array kModes = {NetFilter::kPromiscuous, NetFilter::kAllMulticast,
                                        NetFilter::kAllUnicast,  NetFilter::kNoMulticast,
                                        NetFilter::kNoUnicast,   NetFilter::kNoBroadcast};
  const auto on = whole<uint8_t>(data);
  if (!on || command >= kModes.size()) return false;
  const bool extra = command > VIRTIO_NET_CTRL_RX_ALLMULTI;
  if (!has(extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : VIRTIO_NET_F_CTRL_RX)) return false;
  filter_.set(kModes[command], *on != 0);
  actions_.filter(filter_);
  return true;
}

bool NetControl::handle_mac(uint8_t command, const ChainBuffers& data) {
  if (command == VIRTIO_NET_CTRL_MAC_TABLE_SET) return handle_table(data);
  const auto mac = whole<MacAddress>(data);
  if (!mac || command != VIRTIO_NET_CTRL_MAC_ADDR_SET || !has(VIRTIO_NET_F_CTRL_MAC_ADDR)) {
    return false;
  }
  filter_.mac = *mac;
  actions_.filter(filter_);
  show_mac();
  return true;
}

bool NetControl::handle_table(const ChainBuffers& data) {
  NetFilter::Table unicast;
  NetFilter::Table multicast;
  uint64_t offset = kCommandHeader;
  if (!has(VIRTIO_NET_F_CTRL_RX) || !read_table(data, offset, unicast) ||
      !read_table(data, offset, multicast) || offset != data.size()) {
    return false;
  }
  filter_.unicast = unicast;
  filter_.multicast = multicast;
  actions_.filter(filter_);
  return true;
}

bool NetControl::handle_vlan(uint8_t command, const ChainBuffers& data) {
  const auto id = whole<uint16_t>(data);
  const bool known = command == VIRTIO_NET_CTRL_VLAN_ADD || command == VIRTIO_NET_CTRL_VLAN_DEL;
  if (!id || !known || *id >= NetFilter::kVlans || !has(VIRTIO_NET_F_CTRL_VLAN)) return false;
  filter_.set_vlan(*id, command == VIRTIO_NET_CTRL_VLAN_ADD);
  actions_.filter(filter_);
  return true;
}

bool NetControl::handle_pairs(uint8_t command, const ChainBuffers& data) {
  const auto pairs = whole<uint16_t>(data);
  if (!pairs || command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !has(VIRTIO_NET_F_MQ)) return false;
  if (*pairs == 0 || *pairs > most_pairs_) return false;
  pairs_ = *pairs;
  actions_.pairs(pairs_);
  return true;
}

bool NetControl::handle_offloads(uint8_t command, const ChainBuffers& data) {
  const auto wanted = whole<uint64_t>(data);
  if (!wanted || command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
      !has(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS)) {
    return false;
  }
  // Those that the driver negotiated, and no other (§5.1.6.5.6.1).
  if ((*wanted & ~(features_ & kNetGuestOffloads)) != 0) return false;
  chosen_offloads_ = *wanted;
  actions_.offloads(offloads());
  return true;
}

}  // namespace crosvm
