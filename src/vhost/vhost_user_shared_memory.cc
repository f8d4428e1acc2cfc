#include <utility>

#include "base/format.h"
#include "vhost/vhost_user_device.h"

// What a back-end has mapped into its device's shared memory, as a VhostUserDevice serves it.

namespace crosvm {

bool VhostUserDevice::serve_memory(VhostUserMessage& message) {
  auto served = map_or_unmap(message);
  if (!served) complain(served.error().what());
  return served.has_value();
}

Result<void> VhostUserDevice::map_or_unmap(VhostUserMessage& message) {
  const auto asked = message.payload_as<VhostUserMmap>();
  if (!asked || !shared_memory_) {
    return fail(Error::invalid(format_text("vhost-user request {} of the back-end has {} bytes",
                                           message.request, message.payload.size())));
  }
  const SharedPlace place{.id = asked->shmid, .offset = asked->shm_offset, .length = asked->length};
  if (message.request == VHOST_USER_BACKEND_SHMEM_UNMAP) return shared_memory_->unmap(place);
  if (message.fds.size() != 1 || (asked->flags & ~kVhostUserMmapWritable) != 0) {
    return fail(Error::invalid(format_text("SHMEM_MAP with flags {:#x} and {} descriptors",
                                           asked->flags, message.fds.size())));
  }
  return shared_memory_->map(place, {.file = std::move(message.fds.front()),
                                     .offset = asked->fd_offset,
                                     .writable = (asked->flags & kVhostUserMmapWritable) != 0});
}

}  // namespace crosvm
