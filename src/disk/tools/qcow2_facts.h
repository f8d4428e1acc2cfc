#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/sync_file.h"

namespace crosvm {

/// An internal snapshot of a qcow2 image, as far as people know it.
struct Qcow2SnapshotName {
  std::string id;
  std::string name;
};

/// Errors: those of reading and of `parse_qcow2_header`.
Result<Qcow2Header> read_qcow2_header(SyncFile& file, const std::string& object);

/// The names of its internal snapshots. Errors: those of reading; invalid_argument for a table that
/// reaches past the end of the file.
Result<std::vector<Qcow2SnapshotName>> read_qcow2_snapshots(SyncFile& file,
                                                            const Qcow2Header& header,
                                                            const std::string& object);

}  // namespace crosvm
