#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "jail/seccomp_policy.h"

namespace crosvm {

/// The value on `arch` of a constant of the kernel's headers, its sign extended: "PROT_EXEC",
/// "AT_FDCWD", "EPERM". Nothing when it is unknown, or not there.
std::optional<uint64_t> seccomp_constant(std::string_view name, PolicyArch arch);

}  // namespace crosvm
