#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// As open_path, for a file that the user named: its errors end with what helps, as far as the
/// cause tells.
Result<Fd> open_user_file(const std::string& path, int flags);

/// An input that is read from its start to its end: a file, pipe, socket or character device,
/// opened without waiting. Errors: those of `open_user_file`, invalid_argument for a directory.
Result<Fd> open_user_input(const std::string& path);

}  // namespace crosvm
