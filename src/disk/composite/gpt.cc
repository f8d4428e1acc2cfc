#include "disk/composite/gpt.h"

#include <sys/random.h>

#include <algorithm>

#include "base/format.h"
#include "base/utf8.h"

namespace crosvm::gpt {
namespace {

constexpr std::string_view kLinuxFilesystem = "0fc63daf-8483-4772-8e79-3d69d8477de4";
constexpr uint32_t kRevision = 0x00010000;
constexpr uint32_t kHeaderBytes = 92;
constexpr uint32_t kEntryBytes = 128;
constexpr uint64_t kEntrySectors = kMostPartitions * kEntryBytes / kSector;
static_assert(kBackupSectors == kEntrySectors + 1);

void append(std::string& to, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) to.push_back(static_cast<char>(value >> (8 * i)));
}

void append(std::string& to, const Guid& guid) {
  to.append(reinterpret_cast<const char*>(guid.bytes.data()), guid.bytes.size());
}

/// The CRC that Ethernet and zlib have, too.
uint32_t crc32(std::string_view bytes) {
  uint32_t crc = ~0U;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xEDB88320U : 0);
  }
  return ~crc;
}

/// One partition over the whole disk, so that programs that know no GPT leave it alone.
std::string protective_mbr(uint64_t sectors) {
  std::string mbr(446, '\0');
  append(mbr, 0x00'02'00'00, 4);  // not active; the first sector by cylinder, head and sector
  append(mbr, 0xFF'FF'FF'EE, 4);  // type; the last one, too far for that way of counting
  append(mbr, 1, 4);
  append(mbr, std::min<uint64_t>(sectors - 1, UINT32_MAX), 4);
  mbr.resize(510);
  append(mbr, 0xAA55, 2);
  return mbr;
}

/// In UTF-16, padded with zeroes.
Result<std::string> label_units(const std::string& label) {
  std::string units;
  for (std::string_view rest = label; !rest.empty();) {
    const size_t length = utf8_length(rest);
    if (length == 0) return fail(Error::invalid(format_text("label {}: is no UTF-8", label)));
    uint32_t point = static_cast<unsigned char>(rest[0]);
    if (length > 1) point &= 0x7FU >> length;
    for (const char more : rest.substr(1, length - 1)) {
      point = point << 6 | (static_cast<unsigned char>(more) & 0x3FU);
    }
    if (point >= 0x10000) {
      append(units, 0xD800 + ((point - 0x10000) >> 10), 2);
      append(units, 0xDC00 + (point & 0x3FF), 2);
    } else {
      append(units, point, 2);
    }
    rest.remove_prefix(length);
  }
  if (units.size() > kLabelUnits * 2) {
    return fail(Error::invalid(
        format_text("label {}: is longer than {} UTF-16 units; shorten it", label, kLabelUnits)));
  }
  units.resize(kLabelUnits * 2);
  return units;
}

Result<std::string> make_entries(std::span<const Partition> partitions) {
  const Guid type = TRY(parse_guid(kLinuxFilesystem));
  std::string entries;
  for (const Partition& partition : partitions) {
    append(entries, type);
    append(entries, partition.guid);
    append(entries, partition.first_sector, 8);
    append(entries, partition.first_sector + partition.sectors - 1, 8);
    append(entries, 0, 8);  // attributes
    entries += TRY(label_units(partition.label));
  }
  entries.resize(kEntrySectors * kSector);
  return entries;
}

/// Where a header is, and what belongs to it.
struct Place {
  uint64_t own;
  uint64_t other;
  uint64_t entries;
};

/// One sector.
std::string make_header(const Guid& disk, uint64_t sectors, std::string_view entries,
                        const Place& place) {
  auto with_crc = [&](uint32_t crc) {
    std::string header = "EFI PART";
    append(header, kRevision, 4);
    append(header, kHeaderBytes, 4);
    append(header, crc, 4);
    append(header, 0, 4);
    append(header, place.own, 8);
    append(header, place.other, 8);
    append(header, 2 + kEntrySectors, 8);             // first sector that can be used
    append(header, sectors - kBackupSectors - 1, 8);  // and the last one
    append(header, disk);
    append(header, place.entries, 8);
    append(header, kMostPartitions, 4);
    append(header, kEntryBytes, 4);
    append(header, crc32(entries), 4);
    return header;
  };
  std::string header = with_crc(crc32(with_crc(0)));
  header.resize(kSector);
  return header;
}

int hex_value(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

}  // namespace

Result<Guid> parse_guid(std::string_view text) {
  // Where the bytes of the table are in the text.
  constexpr std::array<size_t, 16> kPlaces = {6,  4,  2,  0,  11, 9,  16, 14,
                                              19, 21, 24, 26, 28, 30, 32, 34};
  const std::unexpected<Error> wrong = fail(
      Error::invalid(format_text("\"{}\" is no GUID: write it as {}", text, kLinuxFilesystem)));
  if (text.size() != 36) return wrong;
  for (const size_t dash : {8, 13, 18, 23}) {
    if (text[dash] != '-') return wrong;
  }
  Guid guid;
  for (size_t i = 0; i < kPlaces.size(); ++i) {
    const int high = hex_value(text[kPlaces[i]]);
    const int low = hex_value(text[kPlaces[i] + 1]);
    if (high < 0 || low < 0) return wrong;
    guid.bytes[i] = static_cast<std::byte>(high << 4 | low);
  }
  return guid;
}

Result<Guid> random_guid() {
  Guid guid;
  if (::getrandom(guid.bytes.data(), guid.bytes.size(), 0) !=
      static_cast<ssize_t>(guid.bytes.size())) {
    return fail(Error::from_errno("making", "a GUID"));
  }
  guid.bytes[7] = (guid.bytes[7] & std::byte{0x0F}) | std::byte{0x40};
  guid.bytes[8] = (guid.bytes[8] & std::byte{0x3F}) | std::byte{0x80};
  return guid;
}

Result<Tables> make_tables(const Guid& disk, uint64_t sectors,
                           std::span<const Partition> partitions) {
  CHECK(partitions.size() <= kMostPartitions);
  for (const Partition& partition : partitions) {
    CHECK(partition.first_sector >= kFirstSector && partition.sectors > 0);
    CHECK(partition.first_sector + partition.sectors <= sectors - kBackupSectors);
  }
  const std::string entries = TRY(make_entries(partitions));
  Tables tables;
  tables.start =
      protective_mbr(sectors) +
      make_header(disk, sectors, entries, {.own = 1, .other = sectors - 1, .entries = 2}) + entries;
  tables.start.resize(kFirstSector * kSector);
  tables.end =
      entries + make_header(disk, sectors, entries,
                            {.own = sectors - 1, .other = 1, .entries = sectors - kBackupSectors});
  return tables;
}

}  // namespace crosvm::gpt
