#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "disk/qcow2/sync_file.h"

namespace crosvm {

/// What a look at all tables of an image has found.
struct Qcow2Report {
  uint64_t errors = 0;                ///< the image is damaged
  uint64_t leaks = 0;                 ///< clusters that nothing uses and nothing can use
  std::vector<std::string> messages;  ///< of the first few
  uint64_t data_clusters = 0;         ///< that the disk has in the image
  uint64_t compressed_clusters = 0;
};

enum class Qcow2Repair : uint8_t { kNothing, kLeaks };

/// Nobody else has the image open. With kLeaks an image without errors has no leaks afterwards, nor
/// refcounts that are too high. Errors: those of reading and writing, and those of
/// `parse_qcow2_header`.
Result<Qcow2Report> check_qcow2(SyncFile& file, const std::string& object, Qcow2Repair repair);

/// Counts the uses of all clusters anew and says in the header that the counts are right. Errors:
/// as above; invalid_argument when the tables themselves are damaged.
Result<void> rebuild_qcow2_refcounts(SyncFile& file, const std::string& object);

}  // namespace crosvm
