#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "disk/image_format.h"
#include "disk/qcow2/qcow2_header.h"

namespace crosvm {

/// A disk image to be made of another.
struct ConvertPlan {
  std::string source;
  std::string target;
  std::optional<ImageFormat> source_format = std::nullopt;     ///< else found out
  std::optional<ImageFormat> format = std::nullopt;            ///< else by the target's name
  std::optional<Qcow2Compression> compression = std::nullopt;  ///< of a qcow2 image
  std::optional<uint64_t> cluster_size = std::nullopt;         ///< of a qcow2 image, in bytes
  std::vector<std::string> allowed = {};                       ///< as allow-backing= of a disk
  bool show_progress = false;
};

/// Whether the options go together. Errors: invalid_argument naming the one that cannot be.
Result<void> check_plan(const ConvertPlan& plan);

/// Makes it. The target gets its name when it is complete and on stable storage; a file that had
/// the name before keeps it until then. Errors: invalid_argument naming the option that cannot be;
/// those of opening, reading and writing; interrupted.
Result<void> convert_image(const ConvertPlan& plan);

/// What a file's name says of the image in it: .img, .raw, .qcow2, .zst, .simg and some more.
std::optional<ImageFormat> format_of_name(std::string_view path);

}  // namespace crosvm
