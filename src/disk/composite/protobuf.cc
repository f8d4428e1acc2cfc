#include "disk/composite/protobuf.h"

namespace crosvm {
namespace {

// How a field is encoded: the low three bits of what it begins with.
constexpr uint64_t kVarint = 0;
constexpr uint64_t kFixed64 = 1;
constexpr uint64_t kLengthThenBytes = 2;
constexpr uint64_t kFixed32 = 5;

constexpr uint64_t kMostNumber = (uint64_t{1} << 29) - 1;

void append_varint(std::string& to, uint64_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

}  // namespace

std::optional<uint64_t> ProtobufReader::varint() {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(rest_.front());
    rest_.remove_prefix(1);
    if (shift == 63 && byte > 1) return std::nullopt;  // more than 64 bits
    value |= uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

std::optional<std::string_view> ProtobufReader::take(uint64_t length) {
  if (length > rest_.size()) return std::nullopt;
  const std::string_view taken = rest_.substr(0, length);
  rest_.remove_prefix(length);
  return taken;
}

std::optional<uint64_t> ProtobufReader::fixed(size_t bytes) {
  const auto taken = take(bytes);
  if (!taken) return std::nullopt;
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= uint64_t{static_cast<unsigned char>((*taken)[i])} << (8 * i);
  }
  return value;
}

std::optional<ProtobufField> ProtobufReader::next() {
  if (rest_.empty() || is_malformed_) return std::nullopt;
  is_malformed_ = true;  // until it has been read
  const auto tag = varint();
  if (!tag || *tag >> 3 == 0 || *tag >> 3 > kMostNumber) return std::nullopt;
  ProtobufField field{.number = static_cast<uint32_t>(*tag >> 3)};
  if ((*tag & 7) == kLengthThenBytes) {
    field.is_bytes = true;
    const auto length = varint();
    const auto bytes = length ? take(*length) : std::nullopt;
    if (!bytes) return std::nullopt;
    field.bytes = *bytes;
  } else {
    std::optional<uint64_t> value;
    if ((*tag & 7) == kVarint) value = varint();
    if ((*tag & 7) == kFixed64) value = fixed(sizeof(uint64_t));
    if ((*tag & 7) == kFixed32) value = fixed(sizeof(uint32_t));
    if (!value) return std::nullopt;
    field.value = *value;
  }
  is_malformed_ = false;
  return field;
}

void append_protobuf_number(std::string& message, uint32_t number, uint64_t value) {
  if (value == 0) return;
  append_varint(message, uint64_t{number} << 3 | kVarint);
  append_varint(message, value);
}

void append_protobuf_bytes(std::string& message, uint32_t number, std::string_view bytes) {
  append_varint(message, uint64_t{number} << 3 | kLengthThenBytes);
  append_varint(message, bytes.size());
  message += bytes;
}

}  // namespace crosvm
