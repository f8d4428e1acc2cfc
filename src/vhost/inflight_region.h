#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/fd.h"
#include "base/result.h"
#include "vhost/vhost_user_protocol.h"
#include "virtio/inflight_log.h"

namespace crosvm {

/// The memory in which a back-end remembers the requests in flight of all queues, so that the
/// front-end can show it to the back-end that comes after a crash ("Inflight I/O tracking"). It is
/// shared with the front-end, which may write what it likes: it is read only when a queue starts,
/// into a copy that is checked; from then on we write and never read.
class InflightRegion {
 public:
  /// Bytes that one queue takes, for a ring of either kind.
  static constexpr uint64_t queue_bytes(bool packed, uint16_t size) {
    const uint64_t bytes = packed ? 32 + 32 * uint64_t{size} : 16 + 16 * uint64_t{size};
    return (bytes + 63) & ~uint64_t{63};
  }

  /// GET_INFLIGHT_FD: makes memory for so many queues of so many elements, of either kind, and
  /// completes `description`. Errors: that of memfd_create.
  static Result<Fd> create(VhostUserInflight& description);
  /// SET_INFLIGHT_FD: uses memory that `create` made, here or in an earlier process. Errors:
  /// invalid_argument for sizes that cannot be, and for a file that is none or shorter; else the
  /// errno of mmap. As with guest memory, a file that shrinks later ends this process.
  static Result<std::shared_ptr<InflightRegion>> map(const VhostUserInflight& description,
                                                     const Fd& file);
  ~InflightRegion();
  InflightRegion(const InflightRegion&) = delete;
  InflightRegion& operator=(const InflightRegion&) = delete;

  /// The log of one queue. Errors: there is no such queue here.
  static Result<std::shared_ptr<InflightLog>> queue(const std::shared_ptr<InflightRegion>& region,
                                                    uint16_t index);
  /// Where the used elements of a packed ring go on that has just stopped, if it has its log here.
  /// Not to be relied upon: the front-end may have written it.
  std::optional<RingPosition> packed_used(uint16_t index) const;
  uint16_t queues() const { return description_.num_queues; }
  uint16_t queue_size() const { return description_.queue_size; }
  /// Forgets every request: the device was reset. No queue runs.
  void clear(bool packed);

  /// The memory of one queue, or null when it does not fit.
  std::byte* at(uint16_t index, bool packed) const;

 private:
  InflightRegion(const VhostUserInflight& description, std::byte* start)
      : description_(description), start_(start) {}

  VhostUserInflight description_;
  std::byte* start_;
};

}  // namespace crosvm
