#include "disk/disk.h"

namespace crosvm {

void Disk::resize(uint64_t, ResizeDone done) {
  done(
      fail(Error(std::errc::not_supported,
                 "an image of this format keeps its size; use one that crosvm disk convert made of "
                 "it, raw or qcow2")));
}

}  // namespace crosvm
