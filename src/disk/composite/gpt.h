#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

/// The GUID partition table (UEFI 2.10, chapter 5), as a composite disk has it.
namespace crosvm::gpt {

constexpr uint64_t kSector = 512;  ///< bytes of a logical block
constexpr size_t kMostPartitions = 128;
constexpr size_t kLabelUnits = 36;       ///< of UTF-16
constexpr uint64_t kFirstSector = 40;    ///< of the first partition; before it the primary table
constexpr uint64_t kBackupSectors = 33;  ///< of the backup table, at the very end of the disk

struct Guid {
  std::array<std::byte, 16> bytes = {};  ///< as in the table: the first three fields little endian
  bool operator==(const Guid&) const = default;
};

/// Takes `0fc63daf-8483-4772-8e79-3d69d8477de4`, in letters of any case. Errors: invalid_argument.
Result<Guid> parse_guid(std::string_view text);
/// A new one, of version 4. Errors: those of getrandom.
Result<Guid> random_guid();

struct Partition {
  std::string label;
  Guid guid;
  uint64_t first_sector = 0;
  uint64_t sectors = 0;  ///< not 0
};

struct Tables {
  std::string start;  ///< kFirstSector sectors: protective MBR, header, entries, padding
  std::string end;    ///< kBackupSectors sectors: entries, header
};

/// The tables of a disk of `sectors`, all of whose partitions are for Linux file systems. They must
/// lie between the tables, and there are at most kMostPartitions. Errors: invalid_argument for a
/// label that is no UTF-8 or too long.
Result<Tables> make_tables(const Guid& disk, uint64_t sectors,
                           std::span<const Partition> partitions);

}  // namespace crosvm::gpt
