#include "arch/x86_64/aml.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/result.h"

namespace crosvm::x86_64::aml {
namespace {

// Opcodes (20.3); those above 0xFF follow the extension prefix.
constexpr uint8_t kZeroOp = 0x00;
constexpr uint8_t kOneOp = 0x01;
constexpr uint8_t kNameOp = 0x08;
constexpr uint8_t kBytePrefix = 0x0A;
constexpr uint8_t kWordPrefix = 0x0B;
constexpr uint8_t kDWordPrefix = 0x0C;
constexpr uint8_t kQWordPrefix = 0x0E;
constexpr uint8_t kScopeOp = 0x10;
constexpr uint8_t kBufferOp = 0x11;
constexpr uint8_t kPackageOp = 0x12;
constexpr uint8_t kVarPackageOp = 0x13;
constexpr uint8_t kMethodOp = 0x14;
constexpr uint8_t kDualNamePrefix = 0x2E;
constexpr uint8_t kMultiNamePrefix = 0x2F;
constexpr uint8_t kExtOpPrefix = 0x5B;
constexpr uint8_t kArg0Op = 0x68;
constexpr uint8_t kStoreOp = 0x70;
constexpr uint8_t kAndOp = 0x7B;
constexpr uint8_t kOrOp = 0x7D;
constexpr uint8_t kDeviceOp = 0x82;  // after kExtOpPrefix
constexpr uint8_t kCreateDWordFieldOp = 0x8A;
constexpr uint8_t kLEqualOp = 0x93;
constexpr uint8_t kIfOp = 0xA0;
constexpr uint8_t kElseOp = 0xA1;
constexpr uint8_t kReturnOp = 0xA4;

void put8(Term& out, uint64_t value) { out.push_back(static_cast<std::byte>(value)); }

/// Little-endian, `size` bytes.
void put(Term& out, uint64_t value, int size) {
  for (int i = 0; i < size; ++i) put8(out, value >> (8 * i));
}

void put_bytes(Term& out, std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

Term prefixed(uint8_t opcode, uint64_t value, int size) {
  Term out;
  put8(out, opcode);
  put(out, value, size);
  return out;
}

/// Opcode and operands without a length.
Term operation(uint8_t opcode, const Terms& operands) {
  Term out;
  put8(out, opcode);
  put_bytes(out, concatenate(operands));
  return out;
}

/// PkgLength (20.2.4): the bytes of the encoding itself count. One byte holds 6 bits; of more bytes
/// the first holds their number and 4 bits, each other 8 bits.
void put_package_length(Term& out, size_t body_size) {
  if (body_size + 1 < 1u << 6) return put8(out, body_size + 1);
  size_t extra = 1;
  while (body_size + 1 + extra >= 1ull << (4 + 8 * extra)) ++extra;
  CHECK(extra <= 3);
  size_t length = body_size + 1 + extra;
  put8(out, extra << 6 | (length & 0xF));
  put(out, length >> 4, static_cast<int>(extra));
}

/// Opcode, PkgLength and what it spans.
Term packaged(uint8_t opcode, const Terms& content) {
  Term body = concatenate(content);
  Term out;
  put8(out, opcode);
  put_package_length(out, body.size());
  put_bytes(out, body);
  return out;
}

bool is_lead_char(char c) { return c == '_' || (c >= 'A' && c <= 'Z'); }
bool is_name_char(char c) { return is_lead_char(c) || (c >= '0' && c <= '9'); }

void put_segment(Term& out, std::string_view segment) {
  CHECK(!segment.empty() && segment.size() <= 4 && is_lead_char(segment[0]));
  CHECK(std::ranges::all_of(segment, is_name_char));
  for (size_t i = 0; i < 4; ++i) put8(out, i < segment.size() ? segment[i] : '_');
}

unsigned hex_digit(char c) {
  CHECK(std::isxdigit(static_cast<unsigned char>(c)));
  if (c <= '9') return c - '0';
  return (c | 0x20) - 'a' + 10;
}

// General flags of address space descriptors (6.4.3.5): both ends fixed, decoded by the bridge.
constexpr uint8_t kMinFixed = 1 << 2;
constexpr uint8_t kMaxFixed = 1 << 3;
constexpr uint8_t kMemoryType = 0;
constexpr uint8_t kBusNumberType = 2;
constexpr uint8_t kReadWriteNonCacheable = 1;

struct AddressSpace {
  uint8_t tag;
  uint8_t type;
  uint8_t type_flags;
  int field_size;  // bytes
  uint64_t first;
  uint64_t last;
};

Term address_space(const AddressSpace& space) {
  Term out;
  put8(out, space.tag);
  put(out, 3 + 5 * space.field_size, 2);
  put8(out, space.type);
  put8(out, kMinFixed | kMaxFixed);
  put8(out, space.type_flags);
  put(out, 0, space.field_size);  // granularity
  put(out, space.first, space.field_size);
  put(out, space.last, space.field_size);
  put(out, 0, space.field_size);  // translation
  put(out, space.last - space.first + 1, space.field_size);
  return out;
}

}  // namespace

Term concatenate(const Terms& terms) {
  Term out;
  for (const Term& term : terms) put_bytes(out, term);
  return out;
}

Term integer(uint64_t value) {
  if (value == 0) return {std::byte{kZeroOp}};
  if (value == 1) return {std::byte{kOneOp}};
  if (value <= UINT8_MAX) return prefixed(kBytePrefix, value, 1);
  if (value <= UINT16_MAX) return prefixed(kWordPrefix, value, 2);
  if (value <= UINT32_MAX) return prefixed(kDWordPrefix, value, 4);
  return prefixed(kQWordPrefix, value, 8);
}

Term buffer(std::span<const std::byte> bytes) {
  return packaged(kBufferOp, {integer(bytes.size()), Term(bytes.begin(), bytes.end())});
}

Term package(const Terms& elements) {
  // The plain form counts its elements in one byte.
  if (elements.size() > UINT8_MAX)
    return packaged(kVarPackageOp, {integer(elements.size()), concatenate(elements)});
  return packaged(kPackageOp, {{static_cast<std::byte>(elements.size())}, concatenate(elements)});
}

Term eisa_id(std::string_view id) {
  CHECK(id.size() == 7);
  uint32_t value = 0;  // big-endian in memory
  for (char c : id.substr(0, 3)) {
    CHECK(c >= 'A' && c <= 'Z');
    value = value << 5 | static_cast<uint32_t>(c - 'A' + 1);
  }
  for (char c : id.substr(3)) value = value << 4 | hex_digit(c);
  return prefixed(kDWordPrefix, __builtin_bswap32(value), 4);
}

Term uuid(std::string_view text) {
  CHECK(text.size() == 36);
  // Where each byte stands in the text: the first three groups are little-endian.
  constexpr std::array<uint8_t, 16> kPositions = {6,  4,  2,  0,  11, 9,  16, 14,
                                                  19, 21, 24, 26, 28, 30, 32, 34};
  Term bytes;
  for (uint8_t at : kPositions) put8(bytes, hex_digit(text[at]) << 4 | hex_digit(text[at + 1]));
  return buffer(bytes);
}

Term path(std::string_view path) {
  Term out;
  while (!path.empty() && (path[0] == '\\' || path[0] == '^')) {
    put8(out, path[0]);
    path.remove_prefix(1);
  }
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    size_t dot = std::min(path.find('.'), path.size());
    segments.push_back(path.substr(0, dot));
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  CHECK(segments.size() <= UINT8_MAX);
  if (segments.empty()) put8(out, 0);  // NullName: the prefix alone
  if (segments.size() == 2) put8(out, kDualNamePrefix);
  if (segments.size() > 2) {
    put8(out, kMultiNamePrefix);
    put8(out, segments.size());
  }
  for (std::string_view segment : segments) put_segment(out, segment);
  return out;
}

Term name(std::string_view path, const Term& value) {
  return operation(kNameOp, {aml::path(path), value});
}

Term scope(std::string_view path, const Terms& body) {
  return packaged(kScopeOp, {aml::path(path), concatenate(body)});
}

Term device(std::string_view path, const Terms& body) {
  Term out = {std::byte{kExtOpPrefix}};
  put_bytes(out, packaged(kDeviceOp, {aml::path(path), concatenate(body)}));
  return out;
}

Term method(std::string_view path, uint8_t arguments, Serialized serialized, const Terms& body) {
  CHECK(arguments <= 7);
  uint8_t flags = arguments | (serialized == Serialized::kYes ? 1 << 3 : 0);
  return packaged(kMethodOp, {aml::path(path), {std::byte{flags}}, concatenate(body)});
}

Term arg(uint8_t index) {
  CHECK(index <= 6);
  return {static_cast<std::byte>(kArg0Op + index)};
}

Term if_true(const Term& condition, const Terms& body) {
  return packaged(kIfOp, {condition, concatenate(body)});
}

Term otherwise(const Terms& body) { return packaged(kElseOp, body); }

Term equal(const Term& left, const Term& right) { return operation(kLEqualOp, {left, right}); }

Term store(const Term& value, const Term& target) { return operation(kStoreOp, {value, target}); }

Term bit_and(const Term& left, const Term& right, const Term& target) {
  return operation(kAndOp, {left, right, target});
}

Term bit_or(const Term& left, const Term& right, const Term& target) {
  return operation(kOrOp, {left, right, target});
}

Term return_value(const Term& value) { return operation(kReturnOp, {value}); }

Term create_dword_field(const Term& source, uint64_t byte_offset, std::string_view path) {
  return operation(kCreateDWordFieldOp, {source, integer(byte_offset), aml::path(path)});
}

Term resource_template(const Terms& descriptors) {
  Term bytes = concatenate(descriptors);
  put8(bytes, 0x79);  // end tag, whose checksum 0 means "not checked" (6.4.2.9)
  put8(bytes, 0);
  return buffer(bytes);
}

Term io_ports(uint16_t base, uint8_t length) {
  Term out;
  put8(out, 0x47);
  put8(out, 1);  // 16-bit decode
  put(out, base, 2);
  put(out, base, 2);  // the highest possible base: fixed
  put8(out, 1);       // alignment
  put8(out, length);
  return out;
}

Term memory32_fixed(uint32_t base, uint32_t length) {
  Term out;
  put8(out, 0x86);
  put(out, 9, 2);
  put8(out, 1);  // writable
  put(out, base, 4);
  put(out, length, 4);
  return out;
}

Term bus_numbers(uint16_t first, uint16_t last) {
  CHECK(first <= last);
  return address_space({.tag = 0x88,
                        .type = kBusNumberType,
                        .type_flags = 0,
                        .field_size = 2,
                        .first = first,
                        .last = last});
}

Term memory_window(uint64_t base, uint64_t length) {
  CHECK(length > 0 && base <= UINT64_MAX - (length - 1));
  uint64_t last = base + (length - 1);
  bool fits_dword = last <= UINT32_MAX && length <= UINT32_MAX;
  return address_space({.tag = static_cast<uint8_t>(fits_dword ? 0x87 : 0x8A),
                        .type = kMemoryType,
                        .type_flags = kReadWriteNonCacheable,
                        .field_size = fits_dword ? 4 : 8,
                        .first = base,
                        .last = last});
}

}  // namespace crosvm::x86_64::aml
