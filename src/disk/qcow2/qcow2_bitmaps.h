#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/sync_file.h"

namespace crosvm {

/// A bitmap that other programs keep in an image, of what has changed since some time: for
/// incremental backups. We neither use nor change any.
struct Qcow2Bitmap {
  std::string name;
  uint64_t table_offset = 0;   ///< bytes
  uint64_t table_entries = 0;  ///< of 8 bytes, each a cluster of the bitmap
};

/// Where in its file a cluster lies that a table entry names; 0: it has none.
inline constexpr uint64_t kQcow2BitmapOffsetMask = 0x00ff'ffff'ffff'fe00;

/// The bitmaps of an image that are up to date; none when it was written to by who does not know
/// them. Errors: those of reading; invalid_argument for a directory that is broken.
Result<std::vector<Qcow2Bitmap>> read_qcow2_bitmaps(SyncFile& file, const Qcow2Header& header,
                                                    const std::string& object);

}  // namespace crosvm
