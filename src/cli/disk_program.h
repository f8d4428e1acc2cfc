#pragma once

#include "base/result.h"
#include "cli/command_line.h"

namespace crosvm {

/// The executable that works on disk images; its compressors are larger than many a device.
inline constexpr std::string_view kDiskProgram = "crosvm-disk";

/// Whether `line` asks for a tool for disk images: `create_qcow2`, `create_composite`, `disk …` but
/// for `disk resize`, which is a request to a VM.
bool is_disk_tool(const CommandLine& line);

/// Becomes `crosvm-disk`, which takes the same arguments. Returns only with an error: it is not
/// there, or the errno of executing it.
Error execute_disk_program(const char* const* argv);

}  // namespace crosvm
