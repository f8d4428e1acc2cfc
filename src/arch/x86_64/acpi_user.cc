#include "arch/x86_64/acpi_user.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

/// A FADT up to X_GPE1_BLK: revision 3 and later.
constexpr size_t kSmallestFadt = offsetof(AcpiFadt, sleep_control_reg);
constexpr size_t kMadtEntries = sizeof(AcpiTableHeader) + sizeof(AcpiMadtHead);

std::string_view signature_of(const TableBytes& table) {
  return {reinterpret_cast<const char*>(table.data()), 4};
}

Result<void> check_bytes(const TableBytes& bytes) {
  AcpiTableHeader header;
  if (bytes.size() < sizeof(header)) {
    return fail(Error::invalid(
        format_text("the file has {} bytes, fewer than the {} of an ACPI table header",
                    bytes.size(), sizeof(header))));
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  uint32_t length = header.length;
  if (length != bytes.size()) {
    return fail(Error::invalid(format_text(
        "the table says that it has {} bytes, but the file has {}; give one whole table per file",
        length, bytes.size())));
  }
  if (checksum_of(bytes) != 0) {
    return fail(Error::invalid(
        "the checksum is wrong; the bytes of a table must add up to 0 modulo 256 (iasl writes a "
        "correct one)"));
  }
  return {};
}

Result<void> check_shape(const TableBytes& bytes) {
  if (signature_of(bytes) == "FACP" && bytes.size() < kSmallestFadt) {
    return fail(Error::invalid(
        format_text("the FADT has {} bytes; one with 64-bit addresses has {} or more (ACPI 2.0)",
                    bytes.size(), kSmallestFadt)));
  }
  if (signature_of(bytes) == "APIC") TRY(interrupt_overrides_of(bytes));
  return {};
}

Result<void> put_single(std::optional<UserAcpiTable>& slot, UserAcpiTable table) {
  if (slot) {
    return fail(Error::invalid(format_text("{} is already the {} table; a machine has one",
                                           slot->path, signature_of(table.bytes))));
  }
  slot = std::move(table);
  return {};
}

Result<void> sort_table(UserAcpiTables& sorted, UserAcpiTable table) {
  TRY(check_bytes(table.bytes));
  TRY(check_shape(table.bytes));
  std::string_view signature = signature_of(table.bytes);
  if (signature == "FACP") return put_single(sorted.fadt, std::move(table));
  if (signature == "APIC") return put_single(sorted.madt, std::move(table));
  if (signature == "DSDT") return put_single(sorted.dsdt, std::move(table));
  sorted.appended.push_back(std::move(table));
  return {};
}

}  // namespace

std::optional<uint16_t> UserAcpiTables::sci_gsi() const {
  if (!fadt) return std::nullopt;
  uint16_t sci;
  std::memcpy(&sci, &fadt->bytes[offsetof(AcpiFadt, sci_int)], sizeof(sci));
  return sci;
}

Result<UserAcpiTables> sort_user_tables(std::vector<UserAcpiTable> tables) {
  UserAcpiTables sorted;
  for (UserAcpiTable& table : tables) {
    std::string where = "ACPI table " + table.path;
    TRY(with_context(sort_table(sorted, std::move(table)), where));
  }
  return sorted;
}

Result<std::vector<TableBytes>> interrupt_overrides_of(const TableBytes& madt) {
  std::vector<TableBytes> overrides;
  if (madt.size() < kMadtEntries)
    return fail(Error::invalid(
        format_text("the MADT has {} bytes, fewer than {}", madt.size(), kMadtEntries)));
  for (size_t at = kMadtEntries; at < madt.size();) {
    size_t left = madt.size() - at;
    size_t length = left < 2 ? 0 : std::to_integer<size_t>(madt[at + 1]);
    bool is_override = madt[at] == std::byte{AcpiMadtInterruptOverride{}.type};
    if (length < 2 || length > left ||
        (is_override && length != sizeof(AcpiMadtInterruptOverride))) {
      return fail(
          Error::invalid(format_text("the MADT entry of type {} at byte {} has a wrong length",
                                     std::to_integer<int>(madt[at]), at)));
    }
    if (is_override) overrides.emplace_back(&madt[at], &madt[at] + length);
    at += length;
  }
  return overrides;
}

}  // namespace crosvm::x86_64
