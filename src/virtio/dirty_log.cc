#include "virtio/dirty_log.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

constexpr const char* kObject = "the log of dirty pages";

}  // namespace

struct DirtyLog::Mapping {
  void* start = nullptr;  // what mmap gave
  uint64_t mapped = 0;
  uint8_t* bits = nullptr;
  uint64_t size = 0;

  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (start) ::munmap(start, mapped);
  }
};

Result<std::shared_ptr<DirtyLog>> DirtyLog::map(const Fd& file, uint64_t offset, uint64_t size) {
  const auto refuse = [&](const char* why) {
    return fail(Error::invalid(
        format_text("{}: {:#x} bytes at offset {:#x}: {}", kObject, size, offset, why)));
  };
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail(Error::from_errno("fstat of", kObject));
  if (!S_ISREG(status.st_mode)) return refuse("no regular file");
  const auto length = static_cast<uint64_t>(status.st_size);
  if (size == 0) return refuse("it is empty");
  if (offset > length || size > length - offset) return refuse("past the end of the file");
  // The bitmap may begin anywhere, what is mapped may not.
  const uint64_t skipped = offset % static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  auto mapping = std::make_shared<Mapping>();
  void* const start = ::mmap(nullptr, size + skipped, PROT_READ | PROT_WRITE, MAP_SHARED,
                             file.get(), static_cast<off_t>(offset - skipped));
  if (start == MAP_FAILED) return fail(Error::from_errno("mapping", kObject));
  mapping->start = start;
  mapping->mapped = size + skipped;
  mapping->bits = static_cast<uint8_t*>(start) + skipped;
  mapping->size = size;
  return std::shared_ptr<DirtyLog>(new DirtyLog(std::move(mapping), Fd()));
}

std::shared_ptr<DirtyLog> DirtyLog::with_event(Fd event) const {
  return std::shared_ptr<DirtyLog>(new DirtyLog(mapping_, std::move(event)));
}

uint64_t DirtyLog::size() const { return mapping_->size; }

bool DirtyLog::covers(GuestAddress start, uint64_t length) const {
  if (length == 0) return true;
  if (length - 1 > UINT64_MAX - start.value) return false;
  return (start.value + (length - 1)) / kPage / 8 < mapping_->size;
}

void DirtyLog::mark(GuestAddress start, uint64_t length) {
  if (length == 0) return;
  CHECK(covers(start, length));
  const uint64_t last = (start.value + (length - 1)) / kPage;
  for (uint64_t page = start.value / kPage; page <= last; ++page) {
    // Who sees the bit sees what was written before it.
    __atomic_fetch_or(mapping_->bits + page / 8, static_cast<uint8_t>(1u << page % 8),
                      __ATOMIC_RELEASE);
  }
  marked_.store(true, std::memory_order_relaxed);
}

void DirtyLog::tell() {
  if (event_ && marked_.exchange(false, std::memory_order_relaxed)) signal_eventfd(event_);
}

}  // namespace crosvm
