#pragma once

#include <optional>
#include <string>
#include <vector>

#include "arch/x86_64/acpi_tables.h"
#include "base/result.h"

namespace crosvm::x86_64 {

/// A table that the user gave with `--acpi-table`.
struct UserAcpiTable {
  std::string path;  ///< for messages
  TableBytes bytes;
};

/// Verified tables, sorted by what is done with them (platform.md 1.11).
struct UserAcpiTables {
  std::optional<UserAcpiTable> fadt;    ///< replaces ours, its virtualized fields rewritten
  std::optional<UserAcpiTable> madt;    ///< its interrupt source overrides are appended to ours
  std::optional<UserAcpiTable> dsdt;    ///< replaces ours
  std::vector<UserAcpiTable> appended;  ///< all others, in the order given

  /// The SCI of the user's FADT, which the machine must use and reserve.
  std::optional<uint16_t> sci_gsi() const;
};

/// Checks length, checksum and shape of each table. Errors: invalid_argument naming the file, for a
/// table that is truncated, followed by other bytes, of a wrong checksum, a FADT too old for 64-bit
/// addresses, a MADT with broken entries, or a second FADT, MADT or DSDT.
Result<UserAcpiTables> sort_user_tables(std::vector<UserAcpiTable> tables);

/// The bytes of each interrupt source override of a MADT. Errors: invalid_argument for an entry
/// whose length is wrong.
Result<std::vector<TableBytes>> interrupt_overrides_of(const TableBytes& madt);

}  // namespace crosvm::x86_64
