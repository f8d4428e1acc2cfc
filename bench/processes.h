#pragma once

#include <sys/types.h>

#include <vector>

namespace crosvm {

/// The process and its living descendants.
std::vector<pid_t> process_family(pid_t pid);

/// CPU time of all threads of the process so far; 0 when it is gone.
double cpu_ms(pid_t pid);

}  // namespace crosvm
