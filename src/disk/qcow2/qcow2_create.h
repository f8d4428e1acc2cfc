#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/sync_file.h"

namespace crosvm {

enum class Qcow2Preallocation : uint8_t {
  kOff,
  kMetadata,  ///< all tables are there, the data is sparse
  kFalloc,    ///< the host's space is reserved, too
  kFull,      ///< and filled with zeroes
};

/// What a new image is to be. Sizes in bytes.
struct Qcow2CreateOptions {
  uint64_t size = 0;  ///< of the disk: a multiple of 512
  uint32_t version = 3;
  uint64_t cluster_size = 64 << 10;
  uint32_t refcount_bits = 16;
  bool extended_l2 = false;
  bool lazy_refcounts = false;
  Qcow2Compression compression = Qcow2Compression::kZlib;
  std::optional<std::string> backing_name = std::nullopt;
  std::optional<std::string> backing_format = std::nullopt;
  std::optional<std::string> data_file_name =
      std::nullopt;       ///< makes one with an external data file
  bool raw_data = false;  ///< the data file is a raw image of its own
  Qcow2Preallocation preallocation = Qcow2Preallocation::kOff;
};

/// Makes an image in `file`, which is empty. `object` names it. The data file is the caller's to
/// make: empty, or as long as the disk with preallocation. Errors: invalid_argument naming the
/// option that cannot be; those of writing.
Result<void> create_qcow2(SyncFile& file, const Qcow2CreateOptions& options,
                          const std::string& object);

}  // namespace crosvm
