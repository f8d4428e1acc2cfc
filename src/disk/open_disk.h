#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/file_broker.h"
#include "disk/async_file.h"
#include "disk/disk.h"
#include "disk/image_format.h"

namespace crosvm {

struct DiskOptions {
  std::string object;  ///< names the image in logs and errors
  bool read_only = false;
  bool sparse = true;  ///< space may be given back to the host
  bool dontcache = false;
  /// The process may be killed and another one go on: what a request has written must be out of it
  /// when the request has ended.
  bool restarts = false;
  std::optional<ImageFormat> format = std::nullopt;  ///< else found out by the first bytes
};

/// Makes a disk of an image, and of the files that it names, whatever its format. In the jail: it
/// reads what the image says. `files` is where their I/O goes, `broker` opens those that are named,
/// if anything does.
/// Errors: what the image is or has that cannot be served, and what helps.
Result<std::unique_ptr<Disk>> open_disk(std::shared_ptr<const Fd> image, const DiskOptions& options,
                                        AsyncFiles& files, FileBroker* broker);

}  // namespace crosvm
