#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace crosvm {

/// One field of a message in the encoding of protocol buffers: a number, or bytes.
struct ProtobufField {
  uint32_t number = 0;
  bool is_bytes = false;
  uint64_t value = 0;           ///< of a number: varint or fixed
  std::string_view bytes = {};  ///< of a string, bytes or message within
};

/// Takes a message apart, field by field. Copies nothing, and needs no memory.
class ProtobufReader {
 public:
  explicit ProtobufReader(std::string_view message) : rest_(message) {}

  /// The next field; nothing at the end, or where the message is malformed: see `is_malformed`.
  std::optional<ProtobufField> next();
  bool is_malformed() const { return is_malformed_; }

 private:
  std::optional<uint64_t> varint();
  std::optional<std::string_view> take(uint64_t length);
  std::optional<uint64_t> fixed(size_t bytes);

  std::string_view rest_;
  bool is_malformed_ = false;
};

// Making a message: each appends one field to it.

/// Zero, the default, is left out.
void append_protobuf_number(std::string& message, uint32_t number, uint64_t value);
void append_protobuf_bytes(std::string& message, uint32_t number, std::string_view bytes);

}  // namespace crosvm
