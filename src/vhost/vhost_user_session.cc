#include "vhost/vhost_user_session.h"

#include <linux/virtio_ids.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "vhost/vhost_user_session_messages.h"
#include "vhost/vhost_user_types.h"
#include "virtio/ring_abi.h"

namespace crosvm {

using namespace vhost_user_session;

namespace {

constexpr uint64_t kOfferedProtocolFeatures =
    vhost_user_bit(VHOST_USER_PROTOCOL_F_MQ) | vhost_user_bit(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |
    vhost_user_bit(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
    vhost_user_bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
    vhost_user_bit(VHOST_USER_PROTOCOL_F_CONFIG) |
    vhost_user_bit(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) |
    vhost_user_bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) |
    vhost_user_bit(VHOST_USER_PROTOCOL_F_RESET_DEVICE) |
    vhost_user_bit(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) |
    vhost_user_bit(VHOST_USER_PROTOCOL_F_STATUS) |
    vhost_user_bit(VHOST_USER_PROTOCOL_F_DEVICE_STATE) |
    vhost_user_bit(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT);

/// Features of vhost itself.
constexpr uint64_t kOfferedFeatures =
    vhost_user_bit(kVhostLogAll) | vhost_user_bit(kVhostUserProtocolFeatures);

constexpr uint64_t kLeastMtu = 68;  // virtio 1.3 §5.1.4.1

constexpr uint8_t kStatusNeedsReset = 0x40;  // VIRTIO_CONFIG_S_NEEDS_RESET

/// Whether the front-end waits for an answer to this request whatever else it asks for
/// ("Communication").
bool has_own_reply(uint32_t request) {
  switch (request) {
    case VHOST_USER_GET_FEATURES:
    case VHOST_USER_GET_PROTOCOL_FEATURES:
    case VHOST_USER_GET_QUEUE_NUM:
    case VHOST_USER_GET_VRING_BASE:
    case VHOST_USER_GET_CONFIG:
    case VHOST_USER_GET_INFLIGHT_FD:
    case VHOST_USER_GET_MAX_MEM_SLOTS:
    case VHOST_USER_GET_STATUS:
      return true;
    default:
      return false;
  }
}

}  // namespace

void VhostUserSession::handle(VhostUserMessage message) {
  const Ticket ticket = answers_.reserve();
  handling_ = true;
  auto answer = take(message, ticket);
  handling_ = false;
  if (!answer) {
    if (device_.complaints.allows()) {
      log::warn("{}: vhost-user request {}: {}", device_.name, message.request,
                answer.error().what());
    }
    return answer_error(message, ticket);
  }
  if (std::holds_alternative<Later>(*answer)) return;
  if (auto* own = std::get_if<VhostUserMessage>(&*answer)) return finish(ticket, std::move(*own));
  if (!wants_acknowledgement(message)) return finish(ticket, std::nullopt);
  finish(ticket, reply(message, uint64_t{0}));
}

bool VhostUserSession::wants_acknowledgement(const VhostUserMessage& message) const {
  return message.needs_reply() && has_protocol(VHOST_USER_PROTOCOL_F_REPLY_ACK);
}

void VhostUserSession::answer_error(const VhostUserMessage& message, Ticket ticket) {
  // The answer without a payload is the specification's for GET_CONFIG; it fits no other request,
  // so that the front-end sees the error there too.
  if (has_own_reply(message.request)) return finish(ticket, reply(message));
  // An empty answer is that of success here.
  if (message.request == VHOST_USER_SET_LOG_BASE && has_protocol(VHOST_USER_PROTOCOL_F_LOG_SHMFD)) {
    return finish(ticket, reply(message, uint64_t{1}));
  }
  if (message.request == VHOST_USER_SET_DEVICE_STATE_FD ||
      message.request == VHOST_USER_CHECK_DEVICE_STATE) {
    return finish(ticket, reply(message, kVhostUserVringNoFd | uint64_t{1}));
  }
  if (!wants_acknowledgement(message)) return finish(ticket, std::nullopt);
  finish(ticket, reply(message, uint64_t{1}));
}

void VhostUserSession::finish(Ticket ticket, std::optional<VhostUserMessage> answer) {
  answers_.finish(ticket, std::move(answer));
  if (!handling_) answered_();
}

std::function<void()> VhostUserSession::acknowledge_later(const VhostUserMessage& message,
                                                          Ticket ticket) {
  if (!wants_acknowledgement(message)) return answer_later(ticket, std::nullopt);
  return answer_later(ticket, reply(message, uint64_t{0}));
}

std::function<void()> VhostUserSession::answer_later(Ticket ticket,
                                                     std::optional<VhostUserMessage> answer) {
  exclusive_ = true;
  // Shared, as a function must be copyable.
  auto shared = std::make_shared<std::optional<VhostUserMessage>>(std::move(answer));
  return [self = weak_from_this(), ticket, shared] {
    const auto session = self.lock();
    if (!session) return;
    session->exclusive_ = false;
    session->finish(ticket, std::move(*shared));
  };
}

Result<VhostUserSession::Answer> VhostUserSession::take(VhostUserMessage& message, Ticket ticket) {
  if (message.is_reply()) return fail(Error::invalid("it is an answer to nothing"));
  switch (message.request) {
    case VHOST_USER_GET_FEATURES:
      return reply(message, device_.info.features | kOfferedFeatures);
    case VHOST_USER_SET_FEATURES:
      return set_features(message, ticket);
    case VHOST_USER_GET_PROTOCOL_FEATURES:
      return reply(message, offered_protocol_features());
    case VHOST_USER_SET_PROTOCOL_FEATURES:
      return set_protocol_features(TRY(payload<uint64_t>(message)));
    case VHOST_USER_SET_OWNER:
      return set_owner();
    case VHOST_USER_RESET_OWNER:
      return Ack{};  // deprecated: "either ignore this message, or …"
    case VHOST_USER_GET_QUEUE_NUM:
      return reply(message, vhost_user_told_queues(device_.info.device_type, rings_.size()));
    case VHOST_USER_GET_CONFIG:
      return get_config(message);
    case VHOST_USER_SET_CONFIG:
      return set_config(message);
    case VHOST_USER_SET_BACKEND_REQ_FD:
      return set_backend_channel(message);
    case VHOST_USER_GET_INFLIGHT_FD:
      return get_inflight(message);
    case VHOST_USER_SET_INFLIGHT_FD:
      return set_inflight(message);
    case VHOST_USER_SET_DEVICE_STATE_FD:
      return set_device_state(message);
    case VHOST_USER_CHECK_DEVICE_STATE:
      return check_device_state(message, ticket);
    case VHOST_USER_NET_SET_MTU:
      return set_mtu(message);
    case VHOST_USER_GET_SHMEM_CONFIG:
      return get_shmem_config(message);
    case VHOST_USER_SET_LOG_BASE:
      return set_log_base(message, ticket);
    case VHOST_USER_SET_LOG_FD:
      return set_log_fd(message, ticket);
    case VHOST_USER_RESET_DEVICE:
      return reset(message, ticket);
    case VHOST_USER_SET_STATUS:
      return set_status(message, ticket);
    case VHOST_USER_GET_STATUS:
      return reply(message, uint64_t{status_ | (needs_reset_ ? kStatusNeedsReset : 0u)});
    case VHOST_USER_SET_MEM_TABLE:
    case VHOST_USER_GET_MAX_MEM_SLOTS:
    case VHOST_USER_ADD_MEM_REG:
    case VHOST_USER_REM_MEM_REG:
      return take_memory(message, ticket);
    default:
      return take_vring(message, ticket);
  }
}

Result<VhostUserSession::Answer> VhostUserSession::take_vring(VhostUserMessage& message,
                                                              Ticket ticket) {
  switch (message.request) {
    case VHOST_USER_SET_VRING_NUM: {
      const auto state = TRY(payload<VhostUserVringState>(message));
      const uint16_t index = TRY(queue_index(state.index));
      const uint16_t largest = device_.info.queue_sizes[index];
      if (state.num == 0 || state.num > largest) {
        return fail(Error::invalid(
            format_text("size {} of queue {}: 1 to {} can be", state.num, index, largest)));
      }
      device_.host.set_vring_num(index, static_cast<uint16_t>(state.num));
      return Ack{};
    }
    case VHOST_USER_SET_VRING_ADDR:
      return set_vring_addr(message, ticket);
    case VHOST_USER_SET_VRING_BASE:
      return set_vring_base(TRY(payload<VhostUserVringState>(message)));
    case VHOST_USER_GET_VRING_BASE:
      return get_vring_base(TRY(payload<VhostUserVringState>(message)), ticket);
    case VHOST_USER_SET_VRING_KICK:
    case VHOST_USER_SET_VRING_CALL:
    case VHOST_USER_SET_VRING_ERR:
      return set_vring_fd(message);
    case VHOST_USER_SET_VRING_ENABLE:
      return set_vring_enable(TRY(payload<VhostUserVringState>(message)));
    default:
      return fail(Error::invalid("it is unknown here"));
  }
}

uint64_t VhostUserSession::offered_protocol_features() const {
  const bool takes_mtu = device_.info.device_type == VIRTIO_ID_NET &&
                         (device_.info.features >> kVirtioNetMtu & 1) != 0;
  return kOfferedProtocolFeatures |
         (takes_mtu ? vhost_user_bit(VHOST_USER_PROTOCOL_F_MTU) : uint64_t{0}) |
         (device_.info.shared_memory.empty() ? uint64_t{0}
                                             : vhost_user_bit(VHOST_USER_PROTOCOL_F_SHMEM));
}

Result<VhostUserSession::Answer> VhostUserSession::set_mtu(const VhostUserMessage& message) {
  if (!has_protocol(VHOST_USER_PROTOCOL_F_MTU))
    return fail(Error::invalid("MTU was not negotiated"));
  const uint64_t mtu = TRY(payload<uint64_t>(message));
  if (mtu < kLeastMtu || mtu > UINT16_MAX) {
    return fail(Error::invalid(format_text("an MTU of {}: {} to 65535 can be", mtu, kLeastMtu)));
  }
  TRY(device_.host.set_mtu(static_cast<uint16_t>(mtu)));
  return Ack{};
}

Result<VhostUserSession::Answer> VhostUserSession::set_owner() {
  if (std::exchange(owned_, true)) return fail(Error::invalid("there is an owner already"));
  return Ack{};
}

Result<VhostUserSession::Answer> VhostUserSession::set_features(const VhostUserMessage& message,
                                                                Ticket ticket) {
  const uint64_t features = TRY(payload<uint64_t>(message));
  if (!owned_) return fail(Error::invalid("features without an owner"));
  const uint64_t offered = device_.info.features | kOfferedFeatures;
  if (const uint64_t unknown = features & ~offered; unknown != 0) {
    return fail(Error::invalid(format_text("features {:#x} were not offered", unknown)));
  }
  const uint64_t former = std::exchange(features_, features);
  device_.host.set_features(features & device_.info.features);
  // Only for another kind of ring: while rings run, as when logging begins, they are where they
  // are.
  if (((former ^ features) & vhost_user_bit(VIRTIO_F_RING_PACKED)) != 0) {
    for (uint16_t index = 0; index < rings_.size(); ++index) {
      if (rings_[index].base) apply_base(index);
    }
  }
  const bool log_changes = use_log();
  update_rings();
  if (!log_changes) return Ack{};
  device_.host.when_settled(acknowledge_later(message, ticket));
  return Later{};
}

Result<VhostUserSession::Answer> VhostUserSession::set_protocol_features(uint64_t features) {
  if (const uint64_t unknown = features & ~offered_protocol_features(); unknown != 0) {
    return fail(Error::invalid(format_text("protocol features {:#x} were not offered", unknown)));
  }
  if ((features & vhost_user_bit(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT)) != 0 &&
      (features & vhost_user_bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)) == 0) {
    return fail(Error::invalid("GET_VRING_BASE_INFLIGHT needs INFLIGHT_SHMFD"));
  }
  protocol_features_ = features;
  return Ack{};
}

Result<uint16_t> VhostUserSession::queue_index(uint64_t index) const {
  if (index < rings_.size()) return static_cast<uint16_t>(index);
  return fail(Error::invalid(format_text("queue {}: there are {} queues", index, rings_.size())));
}

Result<VhostUserSession::Answer> VhostUserSession::set_vring_addr(const VhostUserMessage& message,
                                                                  Ticket ticket) {
  const auto addr = TRY(payload<VhostUserVringAddr>(message));
  const uint16_t index = TRY(queue_index(addr.index));
  // Addresses may come before the memory that they lie in.
  if (table_.regions() != 0 && !translate(addr)) {
    return fail(Error::invalid(format_text("queue {}: an address is in no memory region", index)));
  }
  const bool logged = (addr.flags & kVhostUserVringLog) != 0;
  if (logged && used_log_ && !used_log_->covers({addr.log}, 1)) {
    return fail(Error::invalid(format_text("queue {}: the log of {} bytes has no place {:#x}",
                                           index, used_log_->size(), addr.log)));
  }
  rings_[index].user = addr;
  device_.host.set_vring_log(index, logged ? std::optional(GuestAddress{addr.log}) : std::nullopt);
  update_ring(index);
  if (!used_log_) return Ack{};
  // The front-end takes it that from the acknowledgement on all is logged, or nothing.
  device_.host.when_settled(acknowledge_later(message, ticket));
  return Later{};
}

Result<VhostUserSession::Answer> VhostUserSession::set_vring_base(
    const VhostUserVringState& state) {
  const uint16_t index = TRY(queue_index(state.index));
  rings_[index].base = state.num;
  apply_base(index);
  return Ack{};
}

void VhostUserSession::apply_base(uint16_t index) {
  const bool packed = has_feature(VIRTIO_F_RING_PACKED);
  device_.host.set_vring_base(index, vhost_user_ring_position(*rings_[index].base, packed));
}

Result<VhostUserSession::Answer> VhostUserSession::get_vring_base(const VhostUserVringState& state,
                                                                  Ticket ticket) {
  const uint16_t index = TRY(queue_index(state.index));
  const bool packed = has_feature(VIRTIO_F_RING_PACKED);
  const bool suspend = has_protocol(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT);
  rings_[index].base.reset();  // it goes on where it stops
  auto stopped = [self = weak_from_this(), index, packed, suspend, ticket](RingPosition at) {
    const auto session = self.lock();
    if (!session) return;
    std::optional<RingPosition> used;
    if (suspend && packed && session->inflight_) used = session->inflight_->packed_used(index);
    VhostUserMessage answer = vhost_user_message(
        VHOST_USER_GET_VRING_BASE,
        VhostUserVringState{.index = index,
                            .num = vhost_user_vring_base(at, used.value_or(at), packed)});
    answer.flags = kVhostUserReply;
    session->finish(ticket, std::move(answer));
  };
  device_.host.get_vring_base(
      index, std::move(stopped),
      suspend ? DeviceHost::InFlight::kSuspend : DeviceHost::InFlight::kFinish);
  return Later{};
}

Result<VhostUserSession::Answer> VhostUserSession::set_vring_fd(VhostUserMessage& message) {
  const uint64_t value = TRY(payload<uint64_t>(message));
  const uint16_t index = TRY(queue_index(value & kVhostUserVringIndexMask));
  Fd fd;
  if ((value & kVhostUserVringNoFd) == 0) {
    fd = TRY(only_fd(message));
    TRY(make_nonblocking(fd));
  }
  switch (message.request) {
    case VHOST_USER_SET_VRING_KICK:
      if (!fd) return fail(Error::invalid("a ring without a kick descriptor is not polled"));
      device_.host.set_vring_kick(index, std::move(fd));
      break;
    case VHOST_USER_SET_VRING_CALL:
      device_.host.set_vring_call(index, std::move(fd));
      break;
    default:
      rings_[index].error = std::move(fd);
  }
  return Ack{};
}

Result<VhostUserSession::Answer> VhostUserSession::set_vring_enable(
    const VhostUserVringState& state) {
  const uint16_t index = TRY(queue_index(state.index));
  if (!has_feature(kVhostUserProtocolFeatures)) {
    return fail(Error::invalid("rings are always enabled without VHOST_USER_F_PROTOCOL_FEATURES"));
  }
  if (state.num > 1) return fail(Error::invalid(format_text("{} is neither 0 nor 1", state.num)));
  rings_[index].enabled = state.num == 1;
  update_ring(index);
  return Ack{};
}

std::optional<VringAddresses> VhostUserSession::translate(const VhostUserVringAddr& user) const {
  const auto descriptor = table_.guest_address(user.descriptor);
  const auto driver = table_.guest_address(user.available);
  const auto device = table_.guest_address(user.used);
  if (!descriptor || !driver || !device) return std::nullopt;
  return VringAddresses{*descriptor, *driver, *device};
}

void VhostUserSession::update_ring(uint16_t index) {
  Ring& ring = rings_[index];
  const auto addresses = ring.user ? translate(*ring.user) : std::nullopt;
  // "Ring states": without the feature there is nothing that enables a ring.
  const bool wanted = ring.enabled || !has_feature(kVhostUserProtocolFeatures);
  if (addresses) {
    ring.addresses = *addresses;
    device_.host.set_vring_addr(index, *addresses);
  }
  device_.host.set_vring_enable(index, wanted && addresses);
}

void VhostUserSession::update_rings() {
  for (uint16_t index = 0; index < rings_.size(); ++index) update_ring(index);
}

Result<VhostUserSession::Answer> VhostUserSession::get_config(const VhostUserMessage& message) {
  VhostUserConfigHeader header;
  if (message.payload.size() < sizeof(header)) {
    return fail(Error::invalid("its payload has no header"));
  }
  std::memcpy(&header, message.payload.data(), sizeof(header));
  if (header.size > kVhostUserMaxConfig || header.offset > UINT16_MAX) {
    return fail(Error::invalid(
        format_text("{} bytes at offset {} of a configuration", header.size, header.offset)));
  }
  // A front-end may know more fields than the device has: they are zero.
  std::vector<std::byte> config = device_.host.info().config;
  config.resize(std::max<size_t>(config.size(), header.offset + header.size));
  VhostUserMessage answer = reply(message, header);
  const auto from = config.begin() + header.offset;
  answer.payload.insert(answer.payload.end(), from, from + header.size);
  return answer;
}

Result<VhostUserSession::Answer> VhostUserSession::set_config(const VhostUserMessage& message) {
  VhostUserConfigHeader header;
  if (message.payload.size() < sizeof(header)) {
    return fail(Error::invalid("its payload has no header"));
  }
  std::memcpy(&header, message.payload.data(), sizeof(header));
  const auto data = std::span(message.payload).subspan(sizeof(header));
  const size_t size = device_.info.config.size();
  if (header.size != data.size() || header.offset > size || data.size() > size - header.offset) {
    return fail(Error::invalid(format_text("{} bytes at offset {} of a configuration of {}",
                                           header.size, header.offset, size)));
  }
  device_.host.set_config(header.offset, data);
  return Ack{};
}

Result<VhostUserSession::Answer> VhostUserSession::set_backend_channel(VhostUserMessage& message) {
  if (!has_protocol(VHOST_USER_PROTOCOL_F_BACKEND_REQ)) {
    return fail(Error::invalid("BACKEND_REQ was not negotiated"));
  }
  back_channel_ = TRY(VhostUserBackChannel::create(device_.loop, TRY(only_fd(message))));
  return Ack{};
}

Result<VhostUserSession::Answer> VhostUserSession::set_status(const VhostUserMessage& message,
                                                              Ticket ticket) {
  const uint64_t status = TRY(payload<uint64_t>(message));
  if (status > UINT8_MAX) return fail(Error::invalid(format_text("status {:#x}", status)));
  if (status == 0) return reset(message, ticket);
  status_ = static_cast<uint8_t>(status);
  return Ack{};
}

Result<VhostUserSession::Answer> VhostUserSession::reset(const VhostUserMessage& message,
                                                         Ticket ticket) {
  status_ = 0;
  needs_reset_ = false;
  drop_state();
  for (Ring& ring : rings_) ring = {};
  auto stopped = [self = weak_from_this(), done = acknowledge_later(message, ticket)] {
    if (const auto session = self.lock(); session && session->inflight_) {
      session->inflight_->clear(session->has_feature(VIRTIO_F_RING_PACKED));
    }
    done();
  };
  device_.host.reset(std::move(stopped));
  update_rings();
  TRY(use_inflight());
  return Later{};
}

void VhostUserSession::tell_change() {
  if (!back_channel_ || !has_protocol(VHOST_USER_PROTOCOL_F_CONFIG)) return;
  const auto told = back_channel_->tell_config_change();
  if (!told && device_.complaints.allows()) {
    log::warn("{}: the channel to the front-end: {}", device_.name, told.error().what());
  }
}

void VhostUserSession::config_changed() { tell_change(); }

void VhostUserSession::needs_reset() {
  needs_reset_ = true;
  for (const Ring& ring : rings_) {
    if (ring.error) signal_eventfd(ring.error);
  }
  tell_change();
}

}  // namespace crosvm
