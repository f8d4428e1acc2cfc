#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace crosvm {

/// The path of another executable of ours, which does what would make crosvm itself too large:
/// beside crosvm, else in `../libexec/crosvm/` seen from there. Errors: no_such_file_or_directory,
/// which names both places.
Result<std::string> find_companion_program(std::string_view name);

/// The same for a crosvm that stands in `folder`.
Result<std::string> find_companion_program(std::string_view name, std::string_view folder);

}  // namespace crosvm
