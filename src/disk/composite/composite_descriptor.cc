#include "disk/composite/composite_descriptor.h"

#include <algorithm>
#include <string_view>

#include "base/format.h"
#include "disk/composite/protobuf.h"
#include "disk/image_reader.h"

namespace crosvm {
namespace {

constexpr std::string_view kMagic = "composite_disk\x1d";

// Fields of the message CompositeDisk.
constexpr uint32_t kVersionField = 1;
constexpr uint32_t kComponentField = 2;
constexpr uint32_t kLengthField = 3;
// Fields of the message ComponentDisk.
constexpr uint32_t kPathField = 1;
constexpr uint32_t kOffsetField = 2;
constexpr uint32_t kCapabilityField = 3;
constexpr uint32_t kFileOffsetField = 4;

constexpr uint64_t kReadOnly = 0;
constexpr uint64_t kReadWrite = 1;

class Parser {
 public:
  explicit Parser(const std::string& object) : object_(object) {}

  Result<CompositeDescriptor> parse(std::string_view message) {
    ProtobufReader reader(message);
    while (const auto field = reader.next()) TRY(read_field(*field));
    if (reader.is_malformed()) return broken("is cut off or garbled");
    if (version_ > CompositeDescriptor::kVersion) {
      return fail(Error(std::errc::not_supported,
                        format_text("{}: composite disk version {} is newer than {}, which is "
                                    "known; make it again with create_composite",
                                    object_, version_, CompositeDescriptor::kVersion)));
    }
    TRY(find_lengths());
    return std::move(made_);
  }

 private:
  std::unexpected<Error> broken(const std::string& what) const {
    return fail(Error::invalid(format_text(
        "{}: the composite disk {}; make it again with create_composite", object_, what)));
  }

  Result<void> expect(const ProtobufField& field, bool is_bytes) const {
    if (field.is_bytes == is_bytes) return {};
    return broken(format_text("has a field {} of the wrong kind", field.number));
  }

  Result<void> read_field(const ProtobufField& field) {
    switch (field.number) {
      case kVersionField:
        TRY(expect(field, false));
        version_ = field.value;
        return {};
      case kComponentField:
        TRY(expect(field, true));
        return read_component(field.bytes);
      case kLengthField:
        TRY(expect(field, false));
        made_.length = field.value;
        return {};
      default:
        return {};  // as the encoding demands
    }
  }

  Result<void> read_component(std::string_view message) {
    if (made_.components.size() == CompositeDescriptor::kMostComponents) {
      return broken(
          format_text("has more than {} components", CompositeDescriptor::kMostComponents));
    }
    CompositeComponent component;
    ProtobufReader reader(message);
    while (const auto field = reader.next()) {
      if (field->number >= kPathField && field->number <= kFileOffsetField) {
        TRY(expect(*field, field->number == kPathField));
      }
      if (field->number == kPathField) component.path = field->bytes;
      if (field->number == kOffsetField) component.offset = field->value;
      if (field->number == kFileOffsetField) component.file_offset = field->value;
      if (field->number == kCapabilityField) {
        if (field->value != kReadOnly && field->value != kReadWrite) {
          return broken(format_text("has a component of the unknown capability {}", field->value));
        }
        component.writable = field->value == kReadWrite;
      }
    }
    if (reader.is_malformed()) return broken("has a component that is cut off or garbled");
    if (component.path.empty() || component.path.size() > CompositeDescriptor::kMostPathBytes ||
        component.path.contains('\0')) {
      return broken("has a component with a name that no file can have");
    }
    made_.components.push_back(std::move(component));
    return {};
  }

  /// Each component reaches to the next, the last one to the end of the disk.
  Result<void> find_lengths() {
    auto& components = made_.components;
    if (components.empty()) return broken("has no components");
    if (made_.length > INT64_MAX) return broken(format_text("has {} bytes", made_.length));
    std::ranges::sort(components, {}, &CompositeComponent::offset);
    if (components.front().offset != 0) {
      return broken(format_text("has nothing before byte {}", components.front().offset));
    }
    for (size_t i = 0; i < components.size(); ++i) {
      CompositeComponent& component = components[i];
      const bool is_last = i + 1 == components.size();
      const uint64_t end = is_last ? made_.length : components[i + 1].offset;
      if (end <= component.offset) {
        return broken(is_last ? format_text("has {} bytes but a component at {}", made_.length,
                                            component.offset)
                              : format_text("has two components at byte {}", component.offset));
      }
      component.length = end - component.offset;
      if (component.file_offset > INT64_MAX - component.length) {
        return broken(format_text("has a component from byte {} of {}", component.file_offset,
                                  component.path));
      }
    }
    return {};
  }

  const std::string& object_;
  uint64_t version_ = 0;
  CompositeDescriptor made_;
};

}  // namespace

Result<CompositeDescriptor> parse_composite(std::span<const std::byte> bytes,
                                            const std::string& object) {
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!text.starts_with(kMagic)) {
    return fail(Error::invalid(format_text(
        "{} is no composite disk: it does not begin like one; leave out format", object)));
  }
  return Parser(object).parse(text.substr(kMagic.size()));
}

Result<CompositeDescriptor> read_composite(const Fd& file, const std::string& object) {
  ImageReader reader = TRY(ImageReader::create(file, object));
  if (reader.size() > CompositeDescriptor::kMostBytes) {
    return fail(Error::invalid(
        format_text("{}: a composite disk is described in at most {} bytes, not {}; make it again "
                    "with create_composite",
                    object, CompositeDescriptor::kMostBytes, reader.size())));
  }
  std::vector<std::byte> bytes(reader.size());
  TRY(reader.read(0, bytes));
  return parse_composite(bytes, object);
}

std::string composite_bytes(const CompositeDescriptor& descriptor) {
  std::string bytes(kMagic);
  append_protobuf_number(bytes, kVersionField, CompositeDescriptor::kVersion);
  for (const CompositeComponent& component : descriptor.components) {
    std::string message;
    append_protobuf_bytes(message, kPathField, component.path);
    append_protobuf_number(message, kOffsetField, component.offset);
    append_protobuf_number(message, kCapabilityField, component.writable ? kReadWrite : kReadOnly);
    append_protobuf_number(message, kFileOffsetField, component.file_offset);
    append_protobuf_bytes(bytes, kComponentField, message);
  }
  append_protobuf_number(bytes, kLengthField, descriptor.length);
  return bytes;
}

}  // namespace crosvm
