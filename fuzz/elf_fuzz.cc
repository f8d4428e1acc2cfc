#include "kernel_file.h"

/// An ELF kernel; the input's first byte chooses how it is to be entered.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  crosvm::fuzz::load_as_kernel({data + 1, size - 1}, "\177ELF", 0,
                               static_cast<crosvm::KernelEntry>(data[0] % 3));
  return 0;
}
