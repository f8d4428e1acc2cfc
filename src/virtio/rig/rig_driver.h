#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "virtio/rig/driver_ring.h"
#include "virtio/rig/rig_memory.h"

namespace crosvm {

/// A buffer of a request: bytes for the device to read, or room for it to write.
struct RigBuffer {
  std::vector<std::byte> bytes;
  bool writable = false;
};
RigBuffer readable(std::span<const std::byte> bytes);
RigBuffer readable(std::string_view text);
template <GuestPod T>
  requires(!std::convertible_to<T, std::span<const std::byte>> && !std::is_pointer_v<T> &&
           !std::convertible_to<T, std::string_view>)
RigBuffer readable(const T& value) {
  return readable(std::as_bytes(std::span(&value, 1)));
}
/// `size` bytes, filled with kRigFiller until the device writes.
RigBuffer writable(size_t size);
inline constexpr std::byte kRigFiller{0xcc};

/// Names a request for as long as the driver lives.
using RigToken = uint64_t;

/// A request that came back, or did not in time.
struct RigUsed {
  bool arrived = false;
  RigToken token = 0;
  uint32_t written = 0;          ///< as the device says
  std::vector<std::byte> bytes;  ///< of all writable buffers, in full length

  /// -1 when there is none.
  int last_byte() const { return bytes.empty() ? -1 : std::to_integer<int>(bytes.back()); }
  /// -1 when there is none.
  int byte(size_t index) const {
    return index < bytes.size() ? std::to_integer<int>(bytes[index]) : -1;
  }
};

/// Waits until a descriptor is readable, or something else happened to the rig. How depends on
/// where the device runs.
class RigWaiter {
 public:
  using Clock = std::chrono::steady_clock;
  virtual ~RigWaiter() = default;
  /// Returns at the latest at `deadline`, perhaps for no reason.
  virtual void wait(const Fd& readable, Clock::time_point deadline) = 0;
  /// Nothing will come back any more.
  virtual bool broken() const = 0;
};

/// The driver of one queue, played by a test.
class RigDriver {
 public:
  struct Options {
    DriverRingOptions ring;
    bool indirect = false;  ///< requests of more than one buffer go through a table
  };
  /// All outlive the driver.
  RigDriver(RigMemory& memory, RigWaiter& waiter, const Options& options);
  ~RigDriver();
  RigDriver(const RigDriver&) = delete;
  RigDriver& operator=(const RigDriver&) = delete;

  /// Makes a request available and kicks if the device wants it.
  RigToken send(const std::vector<RigBuffer>& buffers);
  RigToken send(std::initializer_list<RigBuffer> buffers) {
    return send(std::vector<RigBuffer>(buffers));
  }
  /// The same without showing it to the device before `kick`. The ring must have room.
  RigToken add(const std::vector<RigBuffer>& buffers);
  /// Shows what was added; kicks if the device wants it. Returns whether it did.
  bool kick();
  /// Kicks without a reason.
  void kick_anyway() const;

  /// The request that comes back next; not arrived when the time is up or the device needs a reset.
  RigUsed wait_used(std::chrono::milliseconds timeout = kPatience);
  /// The same for one of them; others are kept for later calls.
  RigUsed wait_used(RigToken token, std::chrono::milliseconds timeout = kPatience);
  /// What came back already, without waiting.
  std::optional<RigUsed> try_used();
  static constexpr std::chrono::milliseconds kPatience{20'000};

  /// Requests that did not come back.
  size_t outstanding() const { return requests_.size(); }
  /// Interrupts since the last call; waiting takes them too.
  uint64_t take_interrupts() const { return drain_eventfd(call_); }

  DriverRing& ring() { return *ring_; }
  const Options& options() const { return options_; }
  const Fd& kick_descriptor() const { return kick_; }
  const Fd& call_descriptor() const { return call_; }
  RigMemory& memory() { return memory_; }
  RigWaiter& waiter() { return waiter_; }
  /// Forgets every request and begins anew at `position`.
  void restart(RingPosition position);

 private:
  struct Request {
    RigToken token = 0;
    std::vector<DriverBuffer> buffers;
    std::optional<GuestAddress> table;
  };
  DriverBuffer place(const RigBuffer& buffer);
  void release(const Request& request);
  std::optional<RigUsed> take();
  template <class Take>
  RigUsed wait_for(Take take, std::chrono::milliseconds timeout);

  RigMemory& memory_;
  RigWaiter& waiter_;
  Options options_;
  std::unique_ptr<DriverRing> ring_;
  Fd kick_;
  Fd call_;
  std::unordered_map<uint16_t, Request> requests_;  // by id in the ring
  std::deque<RigUsed> arrived_;                     // taken from the ring while waiting for another
  RigToken next_token_ = 1;
};

}  // namespace crosvm
