#include "virtio/device_state.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace crosvm {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::array<char, 8> kMagic{'c', 'v', 'm', 's', 't', 'a', 't', 'e'};

struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t version = DeviceState::kVersion;
  uint32_t device_type = 0;
  uint64_t features = 0;
  uint32_t fields = 0;
  uint32_t padding = 0;
};
static_assert(sizeof(Header) == 32);

struct FieldHeader {
  uint32_t tag = 0;
  uint32_t length = 0;  // bytes that follow
};

template <class T>
void append(std::vector<std::byte>& to, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

Error truncated() { return Error::invalid("the state of a device ends early"); }

/// Takes bytes off the front.
Result<std::span<const std::byte>> take(std::span<const std::byte>& from, size_t length) {
  if (length > from.size()) return fail(truncated());
  const auto taken = from.first(length);
  from = from.subspan(length);
  return taken;
}

template <class T>
Result<T> take(std::span<const std::byte>& from) {
  T value;
  std::memcpy(&value, TRY(take(from, sizeof(T))).data(), sizeof(T));
  return value;
}

Result<void> check(const Header& header) {
  if (header.magic != kMagic) return fail(Error::invalid("this is not the state of a device"));
  if (header.version != DeviceState::kVersion) {
    return fail(Error(std::errc::not_supported,
                      format_text("the state of a device has version {}, known is {}; restore it "
                                  "with the version of crosvm that saved it",
                                  header.version, DeviceState::kVersion)));
  }
  if (header.padding != 0 || header.fields > DeviceState::kMostFields) {
    return fail(Error::invalid(
        format_text("the state of a device with {} fields cannot be", header.fields)));
  }
  return {};
}

}  // namespace

Result<std::span<const std::byte>> DeviceFields::get_bytes(uint32_t tag) const {
  const auto found = fields_.find(tag);
  if (found == fields_.end()) return fail(Error::invalid(format_text("field {} is missing", tag)));
  return std::span<const std::byte>(found->second);
}

Result<void> DeviceFields::expect_only(std::initializer_list<uint32_t> tags) const {
  for (const auto& [tag, bytes] : fields_) {
    if (std::ranges::find(tags, tag) != tags.end()) continue;
    return fail(Error(std::errc::not_supported, format_text("field {} is not known here", tag)));
  }
  return {};
}

std::vector<std::byte> DeviceState::encode() const {
  std::vector<std::byte> bytes;
  append(bytes, Header{.device_type = device_type,
                       .features = features,
                       .fields = static_cast<uint32_t>(fields.size())});
  for (const auto& [tag, value] : fields.all()) {
    append(bytes, FieldHeader{.tag = tag, .length = static_cast<uint32_t>(value.size())});
    bytes.insert(bytes.end(), value.begin(), value.end());
  }
  return bytes;
}

Result<DeviceState> DeviceState::decode(std::span<const std::byte> bytes) {
  const auto header = TRY(take<Header>(bytes));
  TRY(check(header));
  DeviceState state{.device_type = header.device_type, .features = header.features, .fields = {}};
  for (uint32_t i = 0; i < header.fields; ++i) {
    const auto field = TRY(take<FieldHeader>(bytes));
    const auto value = TRY(take(bytes, field.length));
    if (state.fields.all().contains(field.tag)) {
      return fail(Error::invalid(format_text("field {} comes twice", field.tag)));
    }
    state.fields.set_bytes(field.tag, value);
  }
  if (!bytes.empty()) {
    return fail(Error::invalid(format_text("{} bytes follow the state of a device", bytes.size())));
  }
  return state;
}

}  // namespace crosvm
