#include "devices/net/net_memory.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/memfd.h"

namespace crosvm {
namespace {

constexpr const char* kObject = "what is kept of a card";
// Two places, and which of them counts: the other one is written, then takes its turn.
constexpr size_t kPlaceBytes = 4096;
constexpr size_t kHeaderBytes = 4096;
constexpr size_t kBytes = kHeaderBytes + 2 * kPlaceBytes;
constexpr size_t kMostBytes = kPlaceBytes - sizeof(uint32_t);

/// 0: nothing was stored.
std::atomic_ref<uint32_t> turn_of(std::byte* start) {
  return std::atomic_ref(*reinterpret_cast<uint32_t*>(start));
}
std::byte* place_of(std::byte* start, uint32_t turn) {
  return start + kHeaderBytes + (turn % 2) * kPlaceBytes;
}

}  // namespace

Result<Fd> NetMemory::create() {
  Fd file = make_memfd("crosvm_card");
  if (!file) return fail(Error::from_errno("creating", kObject));
  if (::ftruncate(file.get(), kBytes) != 0 || !seal_size(file)) {
    return fail(Error::from_errno("sizing", kObject));
  }
  return file;
}

Result<NetMemory> NetMemory::map(const Fd& file) {
  if (TRY(file_size(file, kObject)) != kBytes) return fail(Error::invalid(kObject));
  void* const start =
      ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), /*offset=*/0);
  if (start == MAP_FAILED) return fail(Error::from_errno("mapping", kObject));
  return NetMemory(static_cast<std::byte*>(start));
}

NetMemory::NetMemory(NetMemory&& other) noexcept : start_(std::exchange(other.start_, nullptr)) {}

NetMemory::~NetMemory() {
  if (start_) ::munmap(start_, kBytes);
}

void NetMemory::store(const DeviceState& state) {
  const std::vector<std::byte> bytes = state.encode();
  CHECK(bytes.size() <= kMostBytes);
  const uint32_t last = turn_of(start_);
  const uint32_t next = last == UINT32_MAX ? 2 - last % 2 : last + 1;  // the other place, never 0
  std::byte* const place = place_of(start_, next);
  const auto size = static_cast<uint32_t>(bytes.size());
  std::memcpy(place, &size, sizeof(size));
  std::memcpy(place + sizeof(size), bytes.data(), bytes.size());
  turn_of(start_).store(next, std::memory_order_release);
}

std::optional<DeviceState> NetMemory::load() const {
  const uint32_t turn = turn_of(start_).load(std::memory_order_acquire);
  if (turn == 0) return std::nullopt;
  const std::byte* const place = place_of(start_, turn);
  uint32_t size = 0;
  std::memcpy(&size, place, sizeof(size));
  if (size > kMostBytes) return std::nullopt;
  auto state = DeviceState::decode(std::span(place + sizeof(size), size));
  if (!state) return std::nullopt;
  return *std::move(state);
}

}  // namespace crosvm
