#include "disk/disk.h"

#include <cerrno>

namespace crosvm {

void Disk::resize(uint64_t, std::function<void(int error)> done) { done(ENOTSUP); }

}  // namespace crosvm
