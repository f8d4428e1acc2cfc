#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <memory>
#include <utility>

#include "base/format.h"
#include "base/shared_eventfd.h"
#include "vhost/vhost_user_device.h"

// The verbs of a vhost-user front-end: VhostUserDevice as a VhostPort.

namespace crosvm {
namespace {

/// User addresses are guest addresses so much higher up: a back-end learns nothing of our address
/// space, and none of them is null.
constexpr uint64_t kUserAddresses = uint64_t{1} << 44;

constexpr uint64_t kDriverReady =
    VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;

bool is_packed(uint64_t features) { return (features & vhost_user_bit(VIRTIO_F_RING_PACKED)) != 0; }

VhostUserMemoryRegion region_of(const RamRegion& region) {
  return {.guest_address = region.base.value,
          .size = region.size,
          .user_address = kUserAddresses + region.base.value,
          .mmap_offset = region.offset};
}

VhostUserMessage vring_state(uint32_t request, uint16_t index, uint32_t num) {
  return vhost_user_message(request, VhostUserVringState{.index = index, .num = num});
}

/// A message with a copy of `fd`, or with the word that there is none.
Result<VhostUserMessage> vring_fd(uint32_t request, uint16_t index, const Fd& fd) {
  auto message =
      vhost_user_message(request, uint64_t{index} | (fd ? uint64_t{0} : kVhostUserVringNoFd));
  if (fd) message.fds.push_back(TRY(fd.duplicate()));
  return message;
}

}  // namespace

VhostUserMessage VhostUserDevice::vring_addr(uint16_t index, const VringAddresses& at) const {
  return vhost_user_message(
      VHOST_USER_SET_VRING_ADDR,
      VhostUserVringAddr{.index = index,
                         .flags = log_ ? kVhostUserVringLog : 0,
                         .descriptor = kUserAddresses + at.descriptor_area.value,
                         .used = kUserAddresses + at.device_area.value,
                         .available = kUserAddresses + at.driver_area.value,
                         .log = log_ ? at.device_area.value : 0});
}

uint64_t VhostUserDevice::features_to_tell(uint64_t features) const {
  if (options_.own_config) features &= ~(options_.own_config->features & ~said().features);
  if (said().negotiates()) features |= vhost_user_bit(kVhostUserProtocolFeatures);
  if (log_) features |= vhost_user_bit(kVhostLogAll);
  return features;
}

Result<void> VhostUserDevice::set_features(uint64_t features) {
  if (log_) {
    send_log(*log_, [this](const Result<void>& taken) {
      if (!taken) rings().break_down(taken.error().what());
    });
  }
  order(vhost_user_message(VHOST_USER_SET_FEATURES, features_to_tell(features)), breaks_down());
  if (options_.mtu && up() && has(VHOST_USER_PROTOCOL_F_MTU) &&
      options_.device_type == VIRTIO_ID_NET && (features >> kVirtioNetMtu & 1) != 0) {
    order(vhost_user_message(VHOST_USER_NET_SET_MTU, uint64_t{*options_.mtu}), only_complains());
  }
  if (up() && has(VHOST_USER_PROTOCOL_F_STATUS)) {
    order(vhost_user_message(VHOST_USER_SET_STATUS, kDriverReady), only_complains());
  }
  prepare_inflight(is_packed(features));
  return {};
}

// ---- memory

Result<void> VhostUserDevice::set_memory(const GuestMemory& memory) {
  memory_ = &memory;
  if (!up()) return {};
  const auto regions = memory.regions();
  if (regions.size() <= kVhostUserMaxRegions) return send_table(regions, memory.memfd());
  return send_slots(regions, memory.memfd());
}

Result<void> VhostUserDevice::send_table(std::span<const RamRegion> regions, const Fd& memfd) {
  auto message = vhost_user_message(
      VHOST_USER_SET_MEM_TABLE,
      VhostUserMemoryHeader{.num_regions = static_cast<uint32_t>(regions.size()), .padding = 0});
  for (const RamRegion& region : regions) {
    message.add(region_of(region));
    message.fds.push_back(TRY(memfd.duplicate()));
  }
  order(std::move(message), breaks_down());
  return {};
}

Result<void> VhostUserDevice::send_slots(std::span<const RamRegion> regions, const Fd& memfd) {
  if (!has(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) || said().mem_slots < regions.size()) {
    return fail(Error(
        std::errc::not_supported,
        format_text("guest memory has {} regions, the vhost-user back-end takes {}", regions.size(),
                    std::max<uint64_t>(said().mem_slots, kVhostUserMaxRegions))));
  }
  for (const VhostUserMemoryRegion& former : std::exchange(peer_->memory_slots, {})) {
    order(vhost_user_message(VHOST_USER_REM_MEM_REG,
                             VhostUserSingleRegion{.padding = 0, .region = former}),
          breaks_down());
  }
  for (const RamRegion& region : regions) {
    const VhostUserMemoryRegion slot = region_of(region);
    auto message = vhost_user_message(VHOST_USER_ADD_MEM_REG,
                                      VhostUserSingleRegion{.padding = 0, .region = slot});
    message.fds.push_back(TRY(memfd.duplicate()));
    order(std::move(message), breaks_down());
    if (!up()) return {};
    peer_->memory_slots.push_back(slot);
  }
  return {};
}

// ---- what is in flight

void VhostUserDevice::prepare_inflight(bool packed) {
  ready_ = true;
  if (!up() || !has(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)) return;
  if (inflight_ && inflight_->packed == packed) return send_inflight();
  inflight_.reset();
  ready_ = false;
  const auto& sizes = info().queue_sizes;
  const VhostUserInflight wanted{.mmap_size = 0,
                                 .mmap_offset = 0,
                                 .num_queues = static_cast<uint16_t>(sizes.size()),
                                 .queue_size = std::ranges::max(sizes),
                                 .padding = 0};
  note(peer_->conversation.ask(vhost_user_message(VHOST_USER_GET_INFLIGHT_FD, wanted),
                               [this, packed](VhostUserMessage answer) {
                                 return have_inflight(std::move(answer), packed);
                               }));
}

Result<void> VhostUserDevice::have_inflight(VhostUserMessage answer, bool packed) {
  if (answer.payload.size() == kVhostUserInflightBytes)
    answer.payload.resize(sizeof(VhostUserInflight));
  const auto told = answer.payload_as<VhostUserInflight>();
  if (!told || answer.fds.size() > 1) {
    return fail(Error(std::errc::bad_message,
                      format_text("GET_INFLIGHT_FD was answered with {} bytes and {} descriptors",
                                  answer.payload.size(), answer.fds.size())));
  }
  if (answer.fds.empty() || told->mmap_size == 0) {
    complain("the vhost-user back-end keeps no note of what is in flight");
  } else {
    const auto& sizes = info().queue_sizes;
    inflight_ = Inflight{.fd = std::move(answer.fds.front()),
                         .description = {.mmap_size = told->mmap_size,
                                         .mmap_offset = told->mmap_offset,
                                         .num_queues = static_cast<uint16_t>(sizes.size()),
                                         .queue_size = std::ranges::max(sizes),
                                         .padding = 0},
                         .packed = packed};
    send_inflight();
  }
  ready_ = true;
  rings().proceed();
  return {};
}

void VhostUserDevice::send_inflight() {
  auto message = vhost_user_message(VHOST_USER_SET_INFLIGHT_FD, inflight_->description);
  auto fd = inflight_->fd.duplicate();
  if (!fd) return note(fail(std::move(fd).error()));
  message.fds.push_back(std::move(*fd));
  order(std::move(message), breaks_down());
}

// ---- rings

Result<void> VhostUserDevice::start_ring(uint16_t index, const FrontendRing& ring) {
  if (!up()) return {};
  TRY(watch_ring_error());
  auto call = TRY(vring_fd(VHOST_USER_SET_VRING_CALL, index, ring.call));
  auto error = TRY(vring_fd(VHOST_USER_SET_VRING_ERR, index, peer_->ring_error));
  auto kick = TRY(vring_fd(VHOST_USER_SET_VRING_KICK, index, ring.kick));
  auto nudge = std::make_shared<Fd>(TRY(ring.kick.duplicate()));
  const uint32_t base = vhost_user_vring_base(ring.base, rings().packed());
  order(vring_state(VHOST_USER_SET_VRING_NUM, index, ring.size), breaks_down());
  order(vring_addr(index, *ring.addresses), breaks_down());
  order(vring_state(VHOST_USER_SET_VRING_BASE, index, base), breaks_down());
  order(std::move(call), breaks_down());
  order(std::move(error), only_complains());
  order(std::move(kick), breaks_down());
  // There may be requests in the ring whose kick another back-end took, or this one while the ring
  // was not enabled.
  auto look = [nudge]() -> Result<void> {
    signal_shared_eventfd(*nudge);
    return {};
  };
  if (said().negotiates()) {
    order(vring_state(VHOST_USER_SET_VRING_ENABLE, index, 1), breaks_down(), look);
  } else {
    TRY(look());
  }
  // The one before may have given requests back and died before it said so.
  if (peer_->successor && ring.call) signal_shared_eventfd(ring.call);
  say_driver_ok();
  return {};
}

void VhostUserDevice::say_driver_ok() {
  if (!up() || !has(VHOST_USER_PROTOCOL_F_STATUS) || std::exchange(peer_->driver_ok, true)) return;
  // After the rings that are set up in the same breath.
  loop().post([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    std::lock_guard lock(self->mutex());
    if (self->closed() || !self->up() || !self->peer_->driver_ok) return;
    self->order(vhost_user_message(VHOST_USER_SET_STATUS, kDriverReady | VIRTIO_CONFIG_S_DRIVER_OK),
                self->only_complains());
    self->settle();
  });
}

Result<void> VhostUserDevice::set_call(uint16_t index, const Fd& call) {
  order(TRY(vring_fd(VHOST_USER_SET_VRING_CALL, index, call)), breaks_down());
  return {};
}

void VhostUserDevice::stop_ring(uint16_t index, std::function<void(RingPosition)> stopped) {
  if (!up()) return;
  auto on_answer = [index, packed = rings().packed(),
                    stopped = std::move(stopped)](VhostUserMessage answer) -> Result<void> {
    const auto state = answer.payload_as<VhostUserVringState>();
    if (!state || state->index != index) {
      return fail(Error(std::errc::bad_message,
                        format_text("GET_VRING_BASE of queue {} was answered with {} bytes about "
                                    "queue {}",
                                    index, answer.payload.size(), state ? state->index : 0)));
    }
    stopped(vhost_user_ring_position(state->num, packed));
    return {};
  };
  // Disabled afterwards: a network device drops what it finds in a ring that is not enabled.
  note(peer_->conversation.ask(vring_state(VHOST_USER_GET_VRING_BASE, index, 0),
                               std::move(on_answer), options_.stop_patience));
  if (up() && said().negotiates()) {
    order(vring_state(VHOST_USER_SET_VRING_ENABLE, index, 0), only_complains());
  }
}

void VhostUserDevice::reset(std::function<void()> done) {
  inflight_.reset();  // it is about requests that there are no more
  ready_ = false;
  if (!up()) return;
  peer_->driver_ok = false;
  const bool resets = has(VHOST_USER_PROTOCOL_F_RESET_DEVICE);
  done = [this, done = std::move(done)] {
    if (shared_memory_) shared_memory_->clear();
    done();
  };
  auto on_done = [done]() -> Result<void> {
    done();
    return {};
  };
  if (has(VHOST_USER_PROTOCOL_F_STATUS)) {
    order(vhost_user_message(VHOST_USER_SET_STATUS, uint64_t{0}), only_complains());
  }
  if (resets) {
    order(vhost_user_message(VHOST_USER_RESET_DEVICE), only_complains(), on_done);
  } else {
    done();  // no ring runs
  }
}

// ---- where a ring goes on after its back-end is gone

Result<RingPosition> VhostUserDevice::resume_position(uint16_t index, const FrontendRing& ring) {
  if (!memory_ || !ring.addresses) return ring.base;
  if (!rings().packed()) {
    // What the driver has got back is done with.
    const GuestSlice used = TRY(memory_->slice(ring.addresses->device_area, 4));
    return RingPosition{.index = used.load_acquire<uint16_t>(2)};
  }
  return inflight_position(index, ring.base);
}

Result<RingPosition> VhostUserDevice::inflight_position(uint16_t index, RingPosition base) const {
  // "Inflight I/O tracking", QueueRegionPacked: old_used_idx and old_used_wrap_counter.
  struct Header {
    uint64_t features;
    uint16_t version, desc_num, free_head, old_free_head, used_idx, old_used_idx;
    uint8_t used_wrap_counter, old_used_wrap_counter;
  };
  static_assert(offsetof(Header, old_used_idx) == 18 &&
                offsetof(Header, old_used_wrap_counter) == 21);
  const auto unknown = [index](const char* why) {
    return fail(Error(
        std::errc::not_supported,
        format_text("queue {} is a packed ring, and where it stood is not known: {}", index, why)));
  };
  if (!inflight_) return unknown("its vhost-user back-end kept no note of it");
  // Only a memfd answers at once, whoever made it.
  if (::fcntl(inflight_->fd.get(), F_GET_SEALS) < 0) return unknown("the note of it is no memfd");
  const VhostUserInflight& all = inflight_->description;
  std::array<std::byte, sizeof(Header)> bytes{};
  const uint64_t offset = all.mmap_offset + all.mmap_size / all.num_queues * index;
  const ssize_t got = ::pread(inflight_->fd.get(), bytes.data(), bytes.size(),
                              static_cast<off_t>(offset & INT64_MAX));
  if (got != static_cast<ssize_t>(bytes.size())) return unknown("the note of it is too short");
  const auto header = std::bit_cast<Header>(bytes);
  if (header.version == 0) return base;  // no back-end came to look at the ring
  return RingPosition{.index = header.old_used_idx,
                      .wrap_counter = header.old_used_wrap_counter != 0};
}

}  // namespace crosvm
