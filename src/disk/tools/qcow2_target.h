#pragma once

#include <memory>
#include <string>

#include "base/fd.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/tools/image_target.h"

namespace crosvm {

/// A qcow2 image in `file`, which is empty, without a gap: `header` says what it is to be, but for
/// the places of its tables, and has neither a data file nor snapshots. With `compress` each
/// cluster is compressed that gets smaller by it. Errors: invalid_argument for a header that cannot
/// be, file_too_large for a disk that clusters of this size cannot hold.
Result<std::unique_ptr<ImageTarget>> make_qcow2_target(const Fd& file, const Qcow2Header& header,
                                                       bool compress, const std::string& object);

}  // namespace crosvm
