#pragma once

#include "base/result.h"

namespace crosvm {

/// Lets this process have as many descriptors as the system allows it: a disk has about forty, and
/// twice that for queues that run, so that the usual soft limit, which is low for the sake of
/// select(), would be spent by a dozen. Errors: too_many_files_open where so few are allowed that
/// nothing can be begun; where there are a few more, the opening that fails says so.
Result<void> raise_descriptor_limit();

}  // namespace crosvm
