#include <algorithm>

#include "base/format.h"
#include "memory/guest_memory.h"

namespace crosvm {
namespace {

template <class T>
bool is_aligned(const std::byte* address) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(T) == 0;
}

/// One load of the whole value: a guest that rewrites it meanwhile gives us the old or the new one.
template <class T>
void load_once(const std::byte* guest, std::byte* to) {
  const T value = __atomic_load_n(reinterpret_cast<const T*>(guest), __ATOMIC_RELAXED);
  std::memcpy(to, &value, sizeof(T));
}

template <class T>
void store_once(std::byte* guest, const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  __atomic_store_n(reinterpret_cast<T*>(guest), value, __ATOMIC_RELAXED);
}

void copy_from_guest(const std::byte* guest, std::span<std::byte> to) {
  switch (to.size()) {
    case 0:
      return;
    case 1:
      return load_once<uint8_t>(guest, to.data());
    case 2:
      if (is_aligned<uint16_t>(guest)) return load_once<uint16_t>(guest, to.data());
      break;
    case 4:
      if (is_aligned<uint32_t>(guest)) return load_once<uint32_t>(guest, to.data());
      break;
    case 8:
      if (is_aligned<uint64_t>(guest)) return load_once<uint64_t>(guest, to.data());
      break;
    case 16:  // a ring's descriptor
      if (!is_aligned<uint64_t>(guest)) break;
      load_once<uint64_t>(guest, to.data());
      return load_once<uint64_t>(guest + 8, to.data() + 8);
    default:
      break;
  }
  std::memcpy(to.data(), guest, to.size());
}

void copy_to_guest(std::byte* guest, std::span<const std::byte> from) {
  switch (from.size()) {
    case 0:
      return;
    case 1:
      return store_once<uint8_t>(guest, from.data());
    case 2:
      if (is_aligned<uint16_t>(guest)) return store_once<uint16_t>(guest, from.data());
      break;
    case 4:
      if (is_aligned<uint32_t>(guest)) return store_once<uint32_t>(guest, from.data());
      break;
    case 8:
      if (is_aligned<uint64_t>(guest)) return store_once<uint64_t>(guest, from.data());
      break;
    default:
      break;
  }
  std::memcpy(guest, from.data(), from.size());
}

}  // namespace

Result<GuestSlice> GuestSlice::sub(size_t offset, size_t length) const {
  if (offset > size_ || length > size_ - offset) {
    return fail(Error(
        std::errc::result_out_of_range,
        format_text("{} bytes at offset {} of a guest buffer of {} bytes", length, offset, size_)));
  }
  return GuestSlice(data_ + offset, length);
}

Result<void> GuestSlice::read_bytes(size_t offset, std::span<std::byte> to) const {
  copy_from_guest(TRY(sub(offset, to.size())).data_, to);
  return {};
}

Result<void> GuestSlice::write_bytes(size_t offset, std::span<const std::byte> from) const {
  copy_to_guest(TRY(sub(offset, from.size())).data_, from);
  return {};
}

}  // namespace crosvm
