#include "kill_log.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

namespace crosvm::test {

void KillLog::Unmap::operator()(Shared* shared) const { ::munmap(shared, sizeof(Shared)); }

Result<KillLog> KillLog::create() {
  Fd memory(::memfd_create("kill-log", MFD_CLOEXEC));
  if (!memory) return fail(Error::from_errno("making", "a log in memory"));
  if (::ftruncate(memory.get(), sizeof(Shared)) != 0) {
    return fail(Error::from_errno("sizing", "a log in memory"));
  }
  return attach(std::move(memory));
}

Result<KillLog> KillLog::attach(Fd memory) {
  void* mapped =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (mapped == MAP_FAILED) return fail(Error::from_errno("mapping", "a log in memory"));
  return KillLog(std::move(memory), static_cast<Shared*>(mapped));
}

void KillLog::add(const DiskEvent& event) {
  const uint64_t count = shared_->count.load(std::memory_order_relaxed);
  if (count == kMostEvents) return;
  shared_->events[count] = event;
  shared_->count.store(count + 1, std::memory_order_release);
}

std::span<const DiskEvent> KillLog::events() const {
  return {shared_->events, shared_->count.load(std::memory_order_acquire)};
}

}  // namespace crosvm::test
