#include <cstdint>

#include "arch/x86_64/pvh.h"

/// The notes of an ELF file; the input's first byte chooses their alignment.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto notes = std::as_bytes(std::span(data + 1, size - 1));
  const auto found = crosvm::x86_64::find_pvh_note(notes, data[0] % 2 == 0 ? 4 : 8);
  if (found && found->has_value()) CHECK(**found <= UINT32_MAX);
  return 0;
}
