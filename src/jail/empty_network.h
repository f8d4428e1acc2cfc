#pragma once

#include "base/result.h"

namespace crosvm {

/// Moves this process into a network namespace without any interface that is up, where its
/// children are too: one for all workers of a VM, since making one costs more than a process does.
/// Who may not do that as they are get a user namespace of their own first, in which they are
/// root. For a process of one thread. Errors name what forbids it and what helps.
Result<void> enter_empty_network();

}  // namespace crosvm
