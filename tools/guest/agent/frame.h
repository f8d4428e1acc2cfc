#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace crosvm::agent {

/// The version of docs/guest-agent.md that this code speaks.
inline constexpr uint64_t kProtocol = 1;
/// The longest JSON text of a frame, in bytes. Both sides refuse a longer one.
inline constexpr size_t kMaxFrame = size_t{1} << 20;
/// How much of a command's output goes into one frame, in bytes: even where JSON spends six
/// characters on each byte, the frame is short enough.
inline constexpr size_t kMaxChunk = size_t{32} << 10;

/// A frame: four bytes of length, little-endian, and the text. `message` is an object that is known
/// to fit.
std::string encode_frame(const Json& message);

/// Adds a member that holds any bytes: `name` when they are text, else `name`_base64.
void set_bytes(Json& message, std::string_view name, std::string_view bytes);
/// The bytes of such a member; nothing when `message` has neither form. Errors: invalid_argument
/// for a member that is no string or no base64, or when both forms are there.
Result<std::optional<std::string>> get_bytes(const Json& message, std::string_view name);

/// Cuts a stream of bytes into messages.
class FrameReader {
 public:
  void add(std::string_view bytes) { buffer_ += bytes; }
  /// The next whole message, an object; nothing while its end is missing. Errors: invalid_argument
  /// for a text that is no JSON object, which is skipped; message_size for a length beyond the
  /// limit, after which nothing tells where the next frame starts: what has been added is dropped.
  Result<std::optional<Json>> next();
  /// Whether bytes wait for the rest of their frame.
  bool partial() const { return !buffer_.empty(); }
  void clear() { buffer_.clear(); }

 private:
  std::string buffer_;
};

/// RFC 4648 section 4, with padding.
std::string encode_base64(std::string_view bytes);
/// Errors: invalid_argument for anything that `encode_base64` does not make.
Result<std::string> decode_base64(std::string_view text);

}  // namespace crosvm::agent
