#pragma once

namespace crosvm {

/// How an ELF kernel is entered (ours, beyond the reference).
enum class KernelEntry {
  kAuto,   ///< 64-bit entry when it lies in a loaded segment, PVH otherwise
  kLinux,  ///< the 64-bit (or 32-bit) Linux boot protocol
  kPvh,    ///< the PVH note's 32-bit entry
};

}  // namespace crosvm
