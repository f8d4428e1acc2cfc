#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "disk/image_format.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/tools/qcow2_facts.h"

namespace crosvm {

/// What can be said of an image without reading its contents. Sizes in bytes.
struct ImageInfo {
  std::string path;
  ImageFormat format = ImageFormat::kRaw;
  std::optional<uint64_t> virtual_size;  ///< of the disk
  uint64_t file_size = 0;
  uint64_t host_size = 0;   ///< what the file takes on the host
  bool is_written = false;  ///< another process has it locked, to write to it
  std::optional<Qcow2Header> qcow2;
  std::vector<Qcow2SnapshotName> snapshots;  ///< of a qcow2 image
  std::vector<std::string> parts;            ///< of a composite disk: the files that it names
  std::string problem;                       ///< why the rest is not known, or the next image
};

/// An image and its backing files, from itself down. Only `path` must be there and readable; what
/// an image names is looked for as for a disk with these keys allow-backing=. Nothing is locked.
/// Errors: `path` cannot be read.
Result<std::vector<ImageInfo>> image_info(const std::string& path,
                                          const std::vector<std::string>& allowed);

/// For people: a line for each fact.
std::string text_of(const std::vector<ImageInfo>& chain);
/// The same as an object; backing files nest.
Json json_of(const std::vector<ImageInfo>& chain);

}  // namespace crosvm
