#include "kernel_file.h"

/// A bzImage.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  crosvm::fuzz::load_as_kernel({data, size}, "HdrS", 0x202, crosvm::KernelEntry::kAuto);
  return 0;
}
