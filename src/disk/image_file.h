#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// How the file of an image is opened.
struct ImageFileOptions {
  bool read_only = false;
  bool direct = false;    ///< O_DIRECT
  bool lock = true;       ///< flock while it is open: shared for reading alone, else exclusive
  bool for_tool = false;  ///< a program without the keys of a disk: errors advise none of them
};

/// Device and inode: whether two names lead to one file.
using FileIdentity = std::pair<uint64_t, uint64_t>;

/// Opens, checks and locks an image file or block device that the user named. Errors name the file
/// and what helps.
Result<Fd> open_image_file(const std::string& path, const ImageFileOptions& options);

/// The same for one that is open already, but for O_NONBLOCK and with the access it needs; `object`
/// names it.
Result<Fd> prepare_image_file(Fd image, const std::string& object, const ImageFileOptions& options);

/// The flags to open it with.
int image_file_flags(const ImageFileOptions& options);

}  // namespace crosvm
