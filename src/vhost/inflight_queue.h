#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "vhost/inflight_region.h"
#include "virtio/inflight_log.h"

namespace crosvm {

/// One queue of an InflightRegion, in the layouts of the specification ("Inflight I/O tracking"):
/// whichever instruction this process dies at, the memory says which requests are in flight.
class InflightQueue : public InflightLog {
 public:
  InflightQueue(std::shared_ptr<InflightRegion> region, uint16_t index)
      : region_(std::move(region)), index_(index) {}

  Result<Standing> open(const Ring& ring) override;
  uint16_t take(uint16_t head, std::span<const RingDescriptor> elements) override;
  void undo_take(uint16_t slot) override;
  void begin_used(uint16_t slot, RingPosition used) override;
  void finish_used(uint16_t slot) override;

  /// Where the used elements of a packed ring go on, as its memory says, if it was ever used.
  static std::optional<RingPosition> packed_used(const std::byte* queue);
  /// Makes the memory of a queue one that was never used.
  static void forget(std::byte* queue);

 private:
  void format(const Ring& ring);
  Result<Standing> recover_split(const Ring& ring, std::span<std::byte> copy);
  Result<Standing> recover_packed(const Ring& ring, std::span<std::byte> copy);
  Result<Request> packed_request(std::span<const std::byte> copy, uint16_t slot,
                                 std::vector<bool>& out);
  void thread_free_list(const std::vector<bool>& out);
  size_t entry(uint16_t slot) const { return (packed_ ? 32 : 16) + (packed_ ? 32u : 16u) * slot; }
  template <class T>
  void store(size_t offset, T value) const {
    // In this order, as seen by whoever looks after this process is gone.
    __atomic_store_n(reinterpret_cast<T*>(start_ + offset), value, __ATOMIC_RELEASE);
  }

  std::shared_ptr<InflightRegion> region_;
  uint16_t index_;
  std::byte* start_ = nullptr;
  bool packed_ = false;
  uint16_t entries_ = 0;
  uint64_t counter_ = 0;
  RingPosition used_;
  uint16_t last_used_head_ = 0;  // split
  // Packed: the list of free entries, and the last entry of the request in each slot.
  std::vector<uint16_t> next_;
  std::vector<uint16_t> last_;
  uint16_t free_head_ = 0;
};

}  // namespace crosvm
