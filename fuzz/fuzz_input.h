#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace crosvm {

/// Takes bytes of a fuzzer's input, zeros after its end.
class FuzzInput {
 public:
  explicit FuzzInput(std::span<const uint8_t> bytes) : rest_(bytes) {}
  bool empty() const { return rest_.empty(); }
  uint8_t byte() {
    if (rest_.empty()) return 0;
    const uint8_t first = rest_.front();
    rest_ = rest_.subspan(1);
    return first;
  }
  /// A number of that many bytes, the first of them the highest.
  uint32_t number(size_t bytes) {
    uint32_t value = 0;
    for (; bytes > 0 && !empty(); --bytes) value = value << 8 | byte();
    return value;
  }
  void fill(std::span<std::byte> to) {
    for (std::byte& each : to) each = std::byte{byte()};
  }

 private:
  std::span<const uint8_t> rest_;
};

}  // namespace crosvm
