#include "guest/agent/frame.h"

#include "base/format.h"
#include "base/utf8.h"

namespace crosvm::agent {
namespace {

constexpr size_t kLengthBytes = 4;
constexpr std::string_view kBase64Suffix = "_base64";
/// argv is the only thing inside the outermost object.
constexpr size_t kMaxDepth = 4;

/// Whether `bytes` are UTF-8, and shorter as a JSON string, where most control characters take six
/// bytes, than as base64.
bool better_as_text(std::string_view bytes) {
  size_t escaped = 0;
  for (std::string_view rest = bytes; !rest.empty();) {
    size_t length = utf8_length(rest);
    if (length == 0) return false;
    auto first = static_cast<unsigned char>(rest.front());
    if (first < 0x20 && first != '\n' && first != '\r' && first != '\t') ++escaped;
    rest.remove_prefix(length);
  }
  return escaped * 15 <= bytes.size();
}

Result<Json> parse_message(std::string_view text) {
  Json message = TRY(Json::parse(text, {.max_bytes = kMaxFrame, .max_depth = kMaxDepth}));
  if (!message.is_object()) return fail(Error::invalid("expected a JSON object"));
  return message;
}

}  // namespace

std::string encode_frame(const Json& message) {
  std::string text = message.dump();
  CHECK(text.size() <= kMaxFrame);
  std::string frame;
  for (size_t i = 0; i < kLengthBytes; ++i)
    frame += static_cast<char>(text.size() >> (8 * i) & 255);
  return frame + text;
}

void set_bytes(Json& message, std::string_view name, std::string_view bytes) {
  if (better_as_text(bytes)) {
    message.set(name, bytes);
  } else {
    message.set(std::string(name).append(kBase64Suffix), encode_base64(bytes));
  }
}

Result<std::optional<std::string>> get_bytes(const Json& message, std::string_view name) {
  std::string coded_name = std::string(name).append(kBase64Suffix);
  const Json* text = message.find(name);
  const Json* coded = message.find(coded_name);
  if (text != nullptr && coded != nullptr)
    return fail(Error::invalid(format_text("both {} and {} are given", name, coded_name)));
  if (text != nullptr) return TRY(with_context(text->as_string(), name));
  if (coded == nullptr) return std::nullopt;
  return TRY(
      with_context(decode_base64(TRY(with_context(coded->as_string(), coded_name))), coded_name));
}

Result<std::optional<Json>> FrameReader::next() {
  if (buffer_.size() < kLengthBytes) return std::nullopt;
  size_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i)
    length |= static_cast<size_t>(static_cast<uint8_t>(buffer_[i])) << (8 * i);
  if (length > kMaxFrame) {
    buffer_.clear();
    return fail(
        Error(std::errc::message_size,
              format_text("a frame of {} bytes: at most {} are allowed", length, kMaxFrame)));
  }
  if (buffer_.size() < kLengthBytes + length) return std::nullopt;
  auto message = parse_message(std::string_view(buffer_).substr(kLengthBytes, length));
  buffer_.erase(0, kLengthBytes + length);
  return TRY(std::move(message));
}

}  // namespace crosvm::agent
