#include "cli/disk_program.h"

#include <unistd.h>

#include "base/companion_program.h"

namespace crosvm {

bool is_disk_tool(const CommandLine& line) {
  const std::string name = line.command_name();
  return name == "create_composite" || name == "create_qcow2" || name == "disk info" ||
         name == "disk check" || name == "disk convert" || name == "disk compact";
}

Error execute_disk_program(const char* const* argv) {
  const Result<std::string> program = find_companion_program(kDiskProgram);
  if (!program) return program.error();
  // The C interface takes what it does not write as if it did.
  ::execve(program->c_str(), const_cast<char* const*>(argv), environ);
  return Error::from_errno("executing", *program);
}

}  // namespace crosvm
