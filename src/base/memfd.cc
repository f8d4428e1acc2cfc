#include "base/memfd.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>

#include "base/linux_abi.h"

namespace crosvm {

Fd make_memfd(const char* name, unsigned flags) {
  flags |= MFD_CLOEXEC | MFD_ALLOW_SEALING;
  Fd file(::memfd_create(name, flags | MFD_NOEXEC_SEAL));
  if (!file && errno == EINVAL) file = Fd(::memfd_create(name, flags));
  return file;
}

bool seal_size(const Fd& memfd) {
  return ::fcntl(memfd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
}

}  // namespace crosvm
