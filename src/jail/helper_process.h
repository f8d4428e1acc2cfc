#pragma once

#include <functional>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// Starts a process that does `work`, which one that is about to confine itself may not do any
/// more. Beside the standard descriptors it has `kept` alone: others must see them close. It is not
/// waited for, and lives until `work` returns, whatever signals end us; so `work` ends when the
/// other end of `kept` is gone. `purpose` names it in errors: "opens files".
///
/// Before the calling process has threads. Errors: those of fork.
Result<void> start_helper(const Fd& kept, std::string_view purpose,
                          const std::function<void()>& work);

}  // namespace crosvm
