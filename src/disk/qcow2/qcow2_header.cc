#include "disk/qcow2/qcow2_header.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/format.h"
#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_header_fields.h"

namespace crosvm {
namespace {

using namespace qcow2_header;

constexpr uint64_t kKnownIncompatible = kQcow2IncompatibleDirty | kQcow2IncompatibleCorrupt |
                                        kQcow2IncompatibleDataFile | kQcow2IncompatibleCompression |
                                        kQcow2IncompatibleExtendedL2;

class Parser {
 public:
  Parser(std::span<const std::byte> bytes, uint64_t file_size, const std::string& object)
      : bytes_(bytes), file_size_(file_size), object_(object) {}

  Result<Qcow2Header> parse() {
    TRY(parse_fixed());
    TRY(parse_extensions());
    TRY(check_features());
    TRY(parse_backing_name());
    TRY(check_tables());
    return std::move(header_);
  }

 private:
  template <class... Args>
  std::unexpected<Error> broken(fmt::format_string<Args...> text, Args&&... args) const {
    return fail(
        Error::invalid(format_text("{}: {}; the qcow2 image is damaged: restore it, or "
                                   "try qemu-img check",
                                   object_, format_text(text, std::forward<Args>(args)...))));
  }
  template <class... Args>
  std::unexpected<Error> unsupported(fmt::format_string<Args...> text, Args&&... args) const {
    return fail(
        Error(std::errc::not_supported,
              format_text("{}: {}", object_, format_text(text, std::forward<Args>(args)...))));
  }
  uint32_t u32(size_t at) const { return load_big_endian<uint32_t>(bytes_, at); }
  uint64_t u64(size_t at) const { return load_big_endian<uint64_t>(bytes_, at); }

  Result<void> parse_fixed();
  Result<void> parse_version3();
  Result<void> parse_extensions();
  void parse_extension(uint32_t type, std::span<const std::byte> data);
  Result<void> check_features() const;
  Result<void> parse_backing_name();
  Result<void> check_tables() const;
  Result<void> check_table(std::string_view name, uint64_t offset, uint64_t bytes) const;
  std::string feature_name(uint32_t bit) const;

  std::span<const std::byte> bytes_;
  const uint64_t file_size_;
  const std::string& object_;
  Qcow2Header header_;
  size_t header_length_ = kLength2;
  std::span<const std::byte> feature_names_;
};

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Result<void> Parser::parse_fixed() {
  if (bytes_.size() < kLength2) return broken("it ends within the header");
  if (u32(0) != kMagic) return broken("it does not begin as qcow2 does");
  header_.version = u32(4);
  if (header_.version != 2 && header_.version != 3) {
    return unsupported("version {} of qcow2 is not known; versions 2 and 3 are", header_.version);
  }
  header_.cluster_bits = u32(20);
  if (header_.cluster_bits < 9 || header_.cluster_bits > 21) {
    return unsupported("clusters of 2^{} bytes; 512 bytes to 2 MiB are possible",
                       header_.cluster_bits);
  }
  header_.size = u64(24);
  if (header_.size > INT64_MAX) return broken("its disk has {} bytes", header_.size);
  if (u32(32) != 0) {
    return unsupported(
        "it is encrypted, which is not supported; decrypt it "
        "with qemu-img convert");
  }
  header_.l1_entries = u32(36);
  header_.l1_offset = u64(40);
  header_.refcount_table_offset = u64(48);
  header_.refcount_table_clusters = u32(56);
  header_.snapshots = u32(60);
  header_.snapshots_offset = u64(64);
  return header_.version >= 3 ? parse_version3() : Result<void>();
}

Result<void> Parser::parse_version3() {
  if (bytes_.size() < kLength3) return broken("it ends within the header");
  header_.incompatible = u64(72);
  header_.compatible = u64(80);
  header_.autoclear = u64(88);
  header_.refcount_order = u32(96);
  header_length_ = u32(100);
  if (header_.refcount_order > 6) {
    return broken("refcounts of 2^{} bits; 64 are the most", header_.refcount_order);
  }
  const uint64_t cluster = 1ULL << header_.cluster_bits;
  if (header_length_ < kLength3 || header_length_ % 8 != 0 || header_length_ > cluster) {
    return broken("a header of {} bytes", header_length_);
  }
  if (header_length_ > bytes_.size()) return broken("it ends within the header");
  const uint32_t compression =
      header_length_ > kLength3 ? static_cast<uint32_t>(bytes_[kLength3]) : 0;
  const bool has_bit = (header_.incompatible & kQcow2IncompatibleCompression) != 0;
  if (has_bit != (compression != 0)) {
    return broken("its bit about compression contradicts the type {}", compression);
  }
  if (compression > 1) {
    return unsupported("compression of type {} is not known; convert it with qemu-img convert",
                       compression);
  }
  header_.compression = static_cast<Qcow2Compression>(compression);
  return {};
}

Result<void> Parser::parse_extensions() {
  uint64_t end = std::min<uint64_t>(1ULL << header_.cluster_bits, bytes_.size());
  const uint64_t backing = u64(8);
  if (backing != 0) end = std::min(end, backing);
  uint64_t at = header_length_;
  while (at + 8 <= end) {
    const uint32_t type = u32(at);
    const uint32_t length = u32(at + 4);
    if (type == 0) return {};
    at += 8;
    if (length > end - at) {
      return broken("its header extension {:#x} of {} bytes does not fit", type, length);
    }
    parse_extension(type, bytes_.subspan(at, length));
    at += (length + uint64_t{7}) & ~uint64_t{7};
  }
  return {};
}

void Parser::parse_extension(uint32_t type, std::span<const std::byte> data) {
  switch (type) {
    case kBackingFormat:
    case kReferenceBackingFormat:
      header_.backing_format = text_of(data);
      break;
    case kDataFileName:
      header_.data_file_name = text_of(data);
      break;
    case kFeatureNames:
      feature_names_ = data;
      break;
    case kBitmaps:
      // Without the bit it may be anything: it is of who wrote to the image before others did.
      if (data.size() < 24) break;
      header_.bitmaps = {.count = load_big_endian<uint32_t>(data, 0),
                         .bytes = load_big_endian<uint64_t>(data, 8),
                         .offset = load_big_endian<uint64_t>(data, 16)};
      break;
    default:  // what need not be known
      break;
  }
}

/// As the image itself names it.
std::string Parser::feature_name(uint32_t bit) const {
  for (size_t at = 0; at + kFeatureNameEntry <= feature_names_.size(); at += kFeatureNameEntry) {
    if (feature_names_[at] != std::byte{0} || feature_names_[at + 1] != std::byte(bit)) continue;
    std::string name = text_of(feature_names_.subspan(at + 2, kFeatureNameEntry - 2));
    name.resize(std::min(name.find('\0'), name.size()));
    std::ranges::replace_if(name, [](char c) { return c < ' ' || c > '~'; }, '?');
    return name;
  }
  return "a feature without a name";
}

Result<void> Parser::check_features() const {
  const uint64_t unknown = header_.incompatible & ~kKnownIncompatible;
  if (unknown != 0) {
    const uint32_t bit = static_cast<uint32_t>(std::countr_zero(unknown));
    return unsupported(
        "it needs \"{}\" (incompatible feature {}), which is not supported; "
        "convert it with a program that knows it",
        feature_name(bit), bit);
  }
  if (header_.has_extended_l2() && header_.cluster_bits < 14) {
    return broken("extended L2 entries with clusters of 2^{} bytes", header_.cluster_bits);
  }
  if (header_.has_data_file() && header_.snapshots != 0) {
    return broken("internal snapshots and an external data file together");
  }
  if (header_.has_raw_data() && !header_.has_data_file()) {
    return broken("its data file is to be raw, but it has none");
  }
  if (header_.has_raw_data() && u64(8) != 0) {
    return broken("a raw data file and a backing file together");
  }
  return {};
}

Result<void> Parser::parse_backing_name() {
  const uint64_t offset = u64(8);
  const uint32_t length = u32(16);
  if (offset == 0) {
    header_.backing_format.reset();
    return {};
  }
  if (length == 0 || length > kMostName) {
    return broken("the name of its backing file has {} bytes", length);
  }
  const uint64_t end = std::min<uint64_t>(1ULL << header_.cluster_bits, bytes_.size());
  if (offset < header_length_ || offset > end || length > end - offset) {
    return broken("the name of its backing file lies outside the first cluster");
  }
  header_.backing_name = text_of(bytes_.subspan(offset, length));
  if (header_.backing_name->contains('\0')) {
    return broken("the name of its backing file holds a zero byte");
  }
  return {};
}

Result<void> Parser::check_table(std::string_view name, uint64_t offset, uint64_t bytes) const {
  const uint64_t cluster = 1ULL << header_.cluster_bits;
  if (offset % cluster != 0) return broken("its {} at {:#x} is not aligned", name, offset);
  if (offset == 0 || offset > file_size_ || bytes > file_size_ - offset) {
    return broken("its {} of {} bytes at {:#x} lies outside the file", name, bytes, offset);
  }
  return {};
}

Result<void> Parser::check_tables() const {
  if (header_.l1_entries > kQcow2MostL1Entries) {
    return unsupported("an L1 table of {} entries; {} are the most: use larger clusters",
                       header_.l1_entries, kQcow2MostL1Entries);
  }
  const uint64_t needed = header_.layout().l1_entries(header_.size);
  if (needed > header_.l1_entries) {
    return broken("its L1 table of {} entries is too small for a disk of {} bytes",
                  header_.l1_entries, header_.size);
  }
  if (header_.l1_entries > 0) {
    TRY(check_table("L1 table", header_.l1_offset, uint64_t{header_.l1_entries} * 8));
  }
  if (header_.refcount_table_clusters == 0) return broken("it has no refcount table");
  const uint64_t table_bytes = uint64_t{header_.refcount_table_clusters} << header_.cluster_bits;
  if (table_bytes > kQcow2MostRefcountTableBytes) {
    return unsupported("a refcount table of {} bytes; {} are the most", table_bytes,
                       kQcow2MostRefcountTableBytes);
  }
  TRY(check_table("refcount table", header_.refcount_table_offset, 1));
  if (header_.snapshots > kQcow2MostSnapshots) {
    return broken("{} internal snapshots; {} are the most", header_.snapshots, kQcow2MostSnapshots);
  }
  if (header_.snapshots > 0) {
    TRY(check_table("snapshot table", header_.snapshots_offset, uint64_t{header_.snapshots} * 40));
  }
  return {};
}

}  // namespace

Qcow2Layout Qcow2Header::layout() const {
  return {.version = version,
          .cluster_bits = cluster_bits,
          .refcount_order = refcount_order,
          .extended_l2 = has_extended_l2(),
          .external_data = has_data_file()};
}

Result<Qcow2Header> parse_qcow2_header(std::span<const std::byte> first_bytes, uint64_t file_size,
                                       const std::string& object) {
  return Parser(first_bytes, file_size, object).parse();
}

}  // namespace crosvm
