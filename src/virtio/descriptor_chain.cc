#include "virtio/descriptor_chain.h"

#include <algorithm>

#include "base/format.h"

namespace crosvm {
namespace {

Error past_the_end(uint64_t offset, uint64_t length, uint64_t size) {
  return Error(std::errc::result_out_of_range,
               format_text("{} bytes at offset {} of buffers of {} bytes", length, offset, size));
}

/// Calls `each(slice, done)` for the parts of [offset, offset + length) in order; `done` bytes were
/// handled before. Errors: those of `each`, and result_out_of_range past the end.
template <class Each>
Result<void> for_each_part(const ChainBuffers& buffers, uint64_t offset, uint64_t length,
                           Each each) {
  if (offset > buffers.size() || length > buffers.size() - offset) {
    return fail(past_the_end(offset, length, buffers.size()));
  }
  uint64_t done = 0;
  for (const GuestSlice& slice : buffers.slices()) {
    if (done == length) break;
    if (offset >= slice.size()) {
      offset -= slice.size();
      continue;
    }
    const size_t part = std::min<uint64_t>(length - done, slice.size() - offset);
    TRY(each(TRY(slice.sub(offset, part)), done));
    done += part;
    offset = 0;
  }
  return {};
}

}  // namespace

ChainBuffers::ChainBuffers(std::span<const GuestSlice> slices) : slices_(slices) {
  for (const GuestSlice& slice : slices) size_ += slice.size();
}

Result<void> ChainBuffers::read_bytes(uint64_t offset, std::span<std::byte> to) const {
  return for_each_part(*this, offset, to.size(), [&](const GuestSlice& part, uint64_t done) {
    return part.read_bytes(0, to.subspan(done, part.size()));
  });
}

Result<void> ChainBuffers::write_bytes(uint64_t offset, std::span<const std::byte> from) const {
  return for_each_part(*this, offset, from.size(), [&](const GuestSlice& part, uint64_t done) {
    return part.write_bytes(0, from.subspan(done, part.size()));
  });
}

Result<std::vector<GuestSlice>> ChainBuffers::cut(uint64_t offset, uint64_t length) const {
  std::vector<GuestSlice> parts;
  TRY(for_each_part(*this, offset, length, [&](const GuestSlice& part, uint64_t) -> Result<void> {
    parts.push_back(part);
    return {};
  }));
  return parts;
}

}  // namespace crosvm
