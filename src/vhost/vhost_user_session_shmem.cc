#include "vhost/vhost_user_session.h"

// The messages about shared memory regions, in both directions.

#include <algorithm>
#include <utility>

#include "vhost/vhost_user_session_messages.h"

namespace crosvm {

using namespace vhost_user_session;

namespace {

VhostUserMmap place_of(const SharedPlace& place) {
  return {.shmid = place.id, .shm_offset = place.offset, .length = place.length};
}

}  // namespace

Result<VhostUserSession::Answer> VhostUserSession::get_shmem_config(
    const VhostUserMessage& message) {
  if (!has_protocol(VHOST_USER_PROTOCOL_F_SHMEM)) {
    return fail(Error::invalid("SHMEM was not negotiated"));
  }
  // Room for all that can be, as some front-ends read no other size.
  const std::vector<uint64_t>& sizes = device_.info.shared_memory;
  const auto regions = std::ranges::count_if(sizes, [](uint64_t size) { return size != 0; });
  VhostUserMessage answer = reply(
      message, VhostUserShmemHeader{.num_regions = static_cast<uint32_t>(regions), .padding = 0});
  for (size_t id = 0; id < kVhostUserMaxShmemRegions; ++id) {
    answer.add(id < sizes.size() ? sizes[id] : uint64_t{0});
  }
  return answer;
}

void VhostUserSession::order_shared(VhostUserMessage message, DeviceEvents::MapDone done) {
  if (!back_channel_ || !has_protocol(VHOST_USER_PROTOCOL_F_SHMEM)) {
    return done(fail(
        Error(std::errc::not_supported, "the front-end does not show the device's shared memory")));
  }
  back_channel_->order(std::move(message), has_protocol(VHOST_USER_PROTOCOL_F_REPLY_ACK),
                       std::move(done));
}

void VhostUserSession::map_shared(const SharedPlace& place, SharedFile file,
                                  DeviceEvents::MapDone done) {
  VhostUserMmap mapping = place_of(place);
  mapping.fd_offset = file.offset;
  mapping.flags = file.writable ? kVhostUserMmapWritable : 0;
  VhostUserMessage message = vhost_user_message(VHOST_USER_BACKEND_SHMEM_MAP, mapping);
  message.fds.push_back(std::move(file.file));
  order_shared(std::move(message), std::move(done));
}

void VhostUserSession::unmap_shared(const SharedPlace& place, DeviceEvents::MapDone done) {
  order_shared(vhost_user_message(VHOST_USER_BACKEND_SHMEM_UNMAP, place_of(place)),
               std::move(done));
}

}  // namespace crosvm
