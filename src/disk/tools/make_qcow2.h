#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "disk/image_format.h"

namespace crosvm {

/// An empty qcow2 image to be made (cli.md 3.1): of a size, or over a backing file.
struct Qcow2Plan {
  std::string path;
  std::optional<uint64_t> size = std::nullopt;               ///< bytes
  std::optional<std::string> backing_file = std::nullopt;    ///< from the working directory
  std::optional<ImageFormat> backing_format = std::nullopt;  ///< else found out
};

/// Makes it, complete or not at all. Over a backing file it has the size of the disk in that, and
/// names its format. Errors: those of opening images and of `create_qcow2`.
Result<void> make_qcow2(const Qcow2Plan& plan);

}  // namespace crosvm
