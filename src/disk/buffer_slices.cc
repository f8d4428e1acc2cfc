#include "disk/buffer_slices.h"

#include <algorithm>
#include <array>

namespace crosvm {
namespace {

/// Calls `each(slice, done)` for the runs of `buffers` in [offset, offset + length); `done` is the
/// number of bytes before.
template <class Each>
void each_run(std::span<const GuestSlice> buffers, uint64_t offset, uint64_t length, Each each) {
  uint64_t done = 0;
  for (const GuestSlice& buffer : buffers) {
    if (done == length) return;
    if (offset >= buffer.size()) {
      offset -= buffer.size();
      continue;
    }
    const uint64_t taken = std::min<uint64_t>(length - done, buffer.size() - offset);
    each(*buffer.sub(offset, taken), done);
    done += taken;
    offset = 0;
  }
  CHECK(done == length);
}

}  // namespace

void slice_buffers(std::span<const GuestSlice> buffers, uint64_t offset, uint64_t length,
                   std::vector<GuestSlice>& to) {
  to.clear();
  each_run(buffers, offset, length, [&](const GuestSlice& run, uint64_t) { to.push_back(run); });
}

void copy_to_buffers(std::span<const GuestSlice> buffers, uint64_t offset,
                     std::span<const std::byte> from) {
  each_run(buffers, offset, from.size(), [&](const GuestSlice& run, uint64_t done) {
    CHECK(run.write_bytes(0, from.subspan(done, run.size())));
  });
}

void fill_buffers(std::span<const GuestSlice> buffers, uint64_t offset, uint64_t length,
                  uint32_t pattern, uint64_t phase) {
  std::array<std::byte, 4096 + sizeof(pattern)> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(pattern >> (8 * (i % sizeof(pattern))));
  }
  each_run(buffers, offset, length, [&](const GuestSlice& run, uint64_t done) {
    const std::span whole = std::span(bytes).subspan((phase + done) % sizeof(pattern), 4096);
    for (size_t at = 0; at < run.size(); at += whole.size()) {
      CHECK(run.write_bytes(at, whole.first(std::min(whole.size(), run.size() - at))));
    }
  });
}

}  // namespace crosvm
