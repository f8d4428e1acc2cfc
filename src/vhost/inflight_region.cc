#include "vhost/inflight_region.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "base/format.h"
#include "base/memfd.h"
#include "vhost/inflight_queue.h"
#include "virtio/ring.h"

namespace crosvm {
namespace {

constexpr const char* kObject = "the memory for requests in flight";

uint64_t page_size() { return static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)); }

Result<void> check(const VhostUserInflight& description) {
  if (description.num_queues != 0 && description.num_queues <= kVhostUserMaxQueues &&
      description.queue_size != 0 && description.queue_size <= kMaxQueueSize) {
    return {};
  }
  return fail(Error::invalid(format_text("{} for {} queues of {} elements", kObject,
                                         description.num_queues, description.queue_size)));
}

}  // namespace

Result<Fd> InflightRegion::create(VhostUserInflight& description) {
  TRY(check(description));
  const uint64_t bytes = description.num_queues * queue_bytes(true, description.queue_size);
  description.mmap_size = (bytes + page_size() - 1) & ~(page_size() - 1);
  description.mmap_offset = 0;
  Fd file = make_memfd("crosvm_inflight");
  if (!file) return fail(Error::from_errno("creating", kObject));
  if (::ftruncate(file.get(), static_cast<off_t>(description.mmap_size)) != 0 || !seal_size(file)) {
    return fail(Error::from_errno("sizing", kObject));
  }
  return file;
}

Result<std::shared_ptr<InflightRegion>> InflightRegion::map(const VhostUserInflight& description,
                                                            const Fd& file) {
  TRY(check(description));
  const auto refuse = [&](const char* why) {
    return fail(Error::invalid(format_text("{}: {} bytes at offset {:#x}: {}", kObject,
                                           description.mmap_size, description.mmap_offset, why)));
  };
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail(Error::from_errno("fstat of", kObject));
  if (!S_ISREG(status.st_mode)) return refuse("no regular file");
  const auto length = static_cast<uint64_t>(status.st_size);
  if (description.mmap_offset % page_size() != 0) return refuse("not at a whole page");
  if (description.mmap_offset > length ||
      description.mmap_size > length - description.mmap_offset) {
    return refuse("past the end of the file");
  }
  // The layout of split rings is the smaller one.
  if (description.mmap_size < description.num_queues * queue_bytes(false, description.queue_size)) {
    return refuse("too small for its queues");
  }
  void* const start = ::mmap(nullptr, description.mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                             file.get(), static_cast<off_t>(description.mmap_offset));
  if (start == MAP_FAILED) return fail(Error::from_errno("mapping", kObject));
  return std::shared_ptr<InflightRegion>(
      new InflightRegion(description, static_cast<std::byte*>(start)));
}

InflightRegion::~InflightRegion() { ::munmap(start_, description_.mmap_size); }

std::byte* InflightRegion::at(uint16_t index, bool packed) const {
  const uint64_t bytes = queue_bytes(packed, description_.queue_size);
  if (index >= description_.num_queues || (index + 1) * bytes > description_.mmap_size) {
    return nullptr;
  }
  return start_ + index * bytes;
}

Result<std::shared_ptr<InflightLog>> InflightRegion::queue(
    const std::shared_ptr<InflightRegion>& region, uint16_t index) {
  if (index < region->queues()) return std::make_shared<InflightQueue>(region, index);
  return fail(Error::invalid(format_text("{} has no queue {}", kObject, index)));
}

std::optional<RingPosition> InflightRegion::packed_used(uint16_t index) const {
  const std::byte* const queue = at(index, true);
  if (!queue) return std::nullopt;
  return InflightQueue::packed_used(queue);
}

void InflightRegion::clear(bool packed) {
  for (uint16_t index = 0; index < description_.num_queues; ++index) {
    if (std::byte* const queue = at(index, packed)) InflightQueue::forget(queue);
  }
}

}  // namespace crosvm
