#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "virtio/descriptor_chain.h"

namespace crosvm {

/// A descriptor as it lies in memory, in 16 bytes (virtio 1.3 §2.7.5, §2.8.13).
struct RingDescriptor {
  uint64_t address = 0;
  uint32_t length = 0;
  uint16_t third = 0;   ///< split: flags; packed: buffer id
  uint16_t fourth = 0;  ///< split: next; packed: flags
};
static_assert(sizeof(RingDescriptor) == 16 && GuestPod<RingDescriptor>);

/// Appends the slices of [address, address + length), one per RAM region. Errors: bad_address when
/// part of it is no RAM.
Result<void> append_slices(const GuestMemory& memory, GuestAddress address, uint32_t length,
                           std::vector<GuestSlice>& slices);

/// Puts the buffers of one chain together and judges them.
class ChainBuilder {
 public:
  /// Both outlive the builder; `chain` is empty.
  ChainBuilder(const GuestMemory& memory, DescriptorChain& chain)
      : memory_(memory), chain_(chain) {}

  /// Adds a descriptor's buffer; one of no bytes is skipped. Errors: bad_address outside RAM,
  /// invalid_argument for a readable buffer behind a writable one (§2.7.4.2) and for more than
  /// 4 GiB - 1 in all.
  Result<void> add(uint64_t address, uint32_t length, bool writable);
  /// After the last. Errors: invalid_argument when there are no bytes at all.
  Result<void> finish() const;

 private:
  const GuestMemory& memory_;
  DescriptorChain& chain_;
  uint64_t total_ = 0;
};

/// An indirect descriptor table, read entry by entry (§2.7.5.3, §2.8.7).
class IndirectTable {
 public:
  /// Errors: invalid_argument for a length that is no positive multiple of 16, bad_address outside
  /// RAM. `scratch` holds the slices while the table is used.
  static Result<IndirectTable> open(const GuestMemory& memory, uint64_t address, uint32_t length,
                                    std::vector<GuestSlice>& scratch);
  uint32_t entries() const { return static_cast<uint32_t>(bytes_.size() / sizeof(RingDescriptor)); }
  Result<RingDescriptor> entry(uint32_t index) const {
    return bytes_.read<RingDescriptor>(uint64_t{index} * sizeof(RingDescriptor));
  }

 private:
  explicit IndirectTable(ChainBuffers bytes) : bytes_(bytes) {}
  ChainBuffers bytes_;
};

}  // namespace crosvm
