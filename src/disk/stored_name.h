#pragma once

#include <string>

#include "base/result.h"

namespace crosvm {

/// How an image is to name another file: as the user did, but that a relative name leads from the
/// folder of the image, `image`, where the user meant the working directory. Errors: the errno of
/// looking for the folders.
Result<std::string> stored_name(const std::string& image, const std::string& name);

/// `name` so that what stands before a colon is not taken for a protocol.
std::string as_file_name(std::string name);

}  // namespace crosvm
