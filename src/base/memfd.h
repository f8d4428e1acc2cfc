#pragma once

#include "base/fd.h"

namespace crosvm {

/// A file in memory whose size may be sealed, and that nobody can execute where the kernel knows of
/// that. `flags` are further ones of memfd_create. None, with its errno, when there is none.
Fd make_memfd(const char* name, unsigned flags = 0);

/// Whoever gets the descriptor can neither cut the file off nor make it longer, nor undo that.
/// Returns whether it is so; else errno has why.
bool seal_size(const Fd& memfd);

}  // namespace crosvm
