#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "disk/qcow2/qcow2_layout.h"

namespace crosvm {

inline constexpr uint64_t kQcow2IncompatibleDirty = 1 << 0;
inline constexpr uint64_t kQcow2IncompatibleCorrupt = 1 << 1;
inline constexpr uint64_t kQcow2IncompatibleDataFile = 1 << 2;
inline constexpr uint64_t kQcow2IncompatibleCompression = 1 << 3;
inline constexpr uint64_t kQcow2IncompatibleExtendedL2 = 1 << 4;
inline constexpr uint64_t kQcow2CompatibleLazyRefcounts = 1 << 0;
inline constexpr uint64_t kQcow2AutoclearBitmaps = 1 << 0;
inline constexpr uint64_t kQcow2AutoclearRawData = 1 << 1;

/// The most bytes at the start of a file that say what image it is: its first cluster.
inline constexpr size_t kQcow2MostHeaderBytes = 2 << 20;
/// How much of the header may change while the image is in use, from its start.
inline constexpr size_t kQcow2HeaderSector = 512;
inline constexpr uint64_t kQcow2MostL1Entries = 4 << 20;
inline constexpr uint64_t kQcow2MostRefcountTableBytes = 8 << 20;
inline constexpr uint32_t kQcow2MostSnapshots = 65536;

enum class Qcow2Compression : uint8_t { kZlib = 0, kZstd = 1 };

/// Where an image has its directory of dirty bitmaps; not checked against the file.
struct Qcow2BitmapDirectory {
  uint32_t count = 0;
  uint64_t bytes = 0;
  uint64_t offset = 0;
};

/// What the header of an image says, checked. Offsets and sizes in bytes.
struct Qcow2Header {
  uint32_t version = 3;
  uint32_t cluster_bits = 16;
  uint64_t size = 0;  ///< of the disk
  uint32_t l1_entries = 0;
  uint64_t l1_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshots = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible = 0;
  uint64_t compatible = 0;
  uint64_t autoclear = 0;
  uint32_t refcount_order = 4;
  Qcow2Compression compression = Qcow2Compression::kZlib;
  /// As written in the image: relative to its folder, perhaps json: or a protocol.
  std::optional<std::string> backing_name;
  std::optional<std::string> backing_format;
  std::optional<std::string> data_file_name;  ///< may be missing where there is a data file
  std::optional<Qcow2BitmapDirectory> bitmaps;

  bool is_dirty() const { return (incompatible & kQcow2IncompatibleDirty) != 0; }
  bool is_corrupt() const { return (incompatible & kQcow2IncompatibleCorrupt) != 0; }
  bool has_data_file() const { return (incompatible & kQcow2IncompatibleDataFile) != 0; }
  bool has_extended_l2() const { return (incompatible & kQcow2IncompatibleExtendedL2) != 0; }
  bool has_raw_data() const { return (autoclear & kQcow2AutoclearRawData) != 0; }
  /// Dirty bitmaps that are up to date: who writes to the disk and does not know them clears the
  /// bit.
  bool has_bitmaps() const { return bitmaps && (autoclear & kQcow2AutoclearBitmaps) != 0; }
  Qcow2Layout layout() const;
};

/// Checks everything that the header says about itself. `first_bytes` are the first bytes of the
/// file: its first cluster, as far as there is one; kQcow2MostHeaderBytes always suffice.
/// `object` names the file. Errors: not_supported for what is not known here, by name;
/// invalid_argument for a header that is broken.
Result<Qcow2Header> parse_qcow2_header(std::span<const std::byte> first_bytes, uint64_t file_size,
                                       const std::string& object);

/// The first cluster of a new image. Errors: invalid_argument when the names do not fit.
Result<std::vector<std::byte>> encode_qcow2_header(const Qcow2Header& header);

/// Puts what changes in use into the header's start: sizes, offsets of tables, feature bits.
void patch_qcow2_header(const Qcow2Header& header, std::span<std::byte> start);

}  // namespace crosvm
