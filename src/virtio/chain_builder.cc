#include "virtio/chain_builder.h"

#include <algorithm>
#include <limits>

#include "base/format.h"

namespace crosvm {

Result<void> append_slices(const GuestMemory& memory, GuestAddress address, uint32_t length,
                           std::vector<GuestSlice>& slices) {
  uint64_t left = length;
  for (const RamRegion& region : memory.regions()) {  // ascending: an adjacent one comes next
    if (left == 0) break;
    if (address < region.base || address >= region.end()) continue;
    const uint64_t part = std::min(left, region.end().value - address.value);
    slices.push_back(TRY(memory.slice(address, part)));
    address = address + part;
    left -= part;
  }
  if (left == 0) return {};
  return fail(Error(std::errc::bad_address,
                    format_text("a buffer of {} bytes ends or lies outside guest RAM: at {:#x}",
                                length, address.value)));
}

Result<void> ChainBuilder::add(uint64_t address, uint32_t length, bool writable) {
  if (length == 0) return {};
  if (!writable && chain_.writable_bytes_ != 0) {
    return fail(Error::invalid("a device-readable buffer follows a device-writable one"));
  }
  total_ += length;
  if (total_ > std::numeric_limits<uint32_t>::max()) {
    return fail(Error::invalid("a chain of 4 GiB or more"));
  }
  TRY(append_slices(memory_, GuestAddress{address}, length, chain_.slices_));
  if (writable) {
    chain_.writable_bytes_ += length;
  } else {
    chain_.readable_ = chain_.slices_.size();
  }
  return {};
}

Result<void> ChainBuilder::finish() const {
  if (total_ == 0) return fail(Error::invalid("a chain without a single byte"));
  return {};
}

Result<IndirectTable> IndirectTable::open(const GuestMemory& memory, uint64_t address,
                                          uint32_t length, std::vector<GuestSlice>& scratch) {
  if (length == 0 || length % sizeof(RingDescriptor) != 0) {
    return fail(Error::invalid(format_text("an indirect table of {} bytes", length)));
  }
  scratch.clear();
  TRY(with_context(append_slices(memory, GuestAddress{address}, length, scratch),
                   "an indirect table"));
  return IndirectTable(ChainBuffers(scratch));
}

}  // namespace crosvm
