#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "disk/disk.h"

namespace crosvm {

/// What direct I/O demands, in bytes, powers of two; 1 for I/O through the page cache.
struct DirectAlignment {
  uint32_t memory = 1;
  uint32_t offset = 1;  ///< of offsets and lengths
};

/// What the host says of a regular file or block device.
struct RawImageFacts {
  uint64_t size = 0;
  bool is_block_device = false;
  uint32_t logical_block = 1;  ///< of a block device, in bytes; 1 for a file
  DirectAlignment alignment = {};
  DiskTopology topology = {};
};

/// Asks the host. Whether `image` is open for direct I/O is asked, too. Errors: invalid_argument
/// for anything but a file or block device, not_supported where direct I/O does not work, else the
/// errno of the call; `object` names the file.
Result<RawImageFacts> inspect_raw_image(const Fd& image, const std::string& object);

}  // namespace crosvm
