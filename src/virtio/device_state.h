#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <map>
#include <span>
#include <vector>

#include "base/format.h"
#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm {

/// What a device says of itself so that another of its kind can go on in its place: values by tag.
/// A tag is a number that the device chose once, and means the same for ever.
class DeviceFields {
 public:
  void set_bytes(uint32_t tag, std::span<const std::byte> bytes) {
    fields_[tag].assign(bytes.begin(), bytes.end());
  }
  template <GuestPod T>
  void set(uint32_t tag, const T& value) {
    set_bytes(tag, std::as_bytes(std::span(&value, 1)));
  }
  /// Errors: there is none, or it has another size.
  template <GuestPod T>
  Result<T> get(uint32_t tag) const {
    const std::span<const std::byte> bytes = TRY(get_bytes(tag));
    if (bytes.size() != sizeof(T)) {
      return fail(Error::invalid(
          format_text("field {} has {} bytes instead of {}", tag, bytes.size(), sizeof(T))));
    }
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  Result<std::span<const std::byte>> get_bytes(uint32_t tag) const;
  /// Errors: there is another field, which a device of a later version must have written.
  Result<void> expect_only(std::initializer_list<uint32_t> tags) const;

  size_t size() const { return fields_.size(); }
  const std::map<uint32_t, std::vector<std::byte>>& all() const { return fields_; }

 private:
  std::map<uint32_t, std::vector<std::byte>> fields_;
};

/// The state of a device as it is handed from one process to another: a magic, the version of the
/// format, the device's type, the features that its driver negotiated, and its fields; numbers in
/// little-endian order.
struct DeviceState {
  static constexpr uint32_t kVersion = 1;
  static constexpr size_t kMostBytes = 16 << 20;  ///< of all of it
  static constexpr size_t kMostFields = 4096;

  uint32_t device_type = 0;
  uint64_t features = 0;
  DeviceFields fields;

  std::vector<std::byte> encode() const;
  /// Errors: invalid_argument for what is not such a state, not_supported for a version that is not
  /// known here, naming it.
  static Result<DeviceState> decode(std::span<const std::byte> bytes);
};

}  // namespace crosvm
