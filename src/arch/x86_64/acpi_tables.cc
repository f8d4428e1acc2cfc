#include "arch/x86_64/acpi_tables.h"

#include <cstring>

#include "base/result.h"

namespace crosvm::x86_64 {

uint8_t checksum_of(std::span<const std::byte> bytes) {
  uint8_t sum = 0;
  for (std::byte b : bytes) sum += std::to_integer<uint8_t>(b);
  return static_cast<uint8_t>(-sum);
}

AcpiTableHeader make_table_header(std::string_view signature, uint8_t revision, size_t body_size) {
  CHECK(signature.size() == 4);
  AcpiTableHeader header = {};
  std::memcpy(header.signature, signature.data(), 4);
  header.length = static_cast<uint32_t>(sizeof(header) + body_size);
  header.revision = revision;
  std::memcpy(header.oem_id, "CROSVM", 6);
  std::memcpy(header.oem_table_id, "CROSVMDT", 8);
  header.oem_revision = 1;
  std::memcpy(header.creator_id, "CROS", 4);
  header.creator_revision = 0;
  return header;
}

TableBytes make_table(std::string_view signature, uint8_t revision,
                      std::span<const std::byte> body) {
  TableBytes table;
  append_object(table, make_table_header(signature, revision, body.size()));
  table.insert(table.end(), body.begin(), body.end());
  seal_table(table);
  return table;
}

void seal_table(TableBytes& table) {
  CHECK(table.size() >= sizeof(AcpiTableHeader));
  uint32_t length = static_cast<uint32_t>(table.size());
  std::memcpy(&table[offsetof(AcpiTableHeader, length)], &length, sizeof(length));
  std::byte& checksum = table[offsetof(AcpiTableHeader, checksum)];
  checksum = std::byte{0};
  checksum = std::byte{checksum_of(table)};
}

}  // namespace crosvm::x86_64
