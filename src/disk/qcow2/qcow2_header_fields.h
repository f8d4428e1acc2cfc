#pragma once

#include <cstddef>
#include <cstdint>

/// Numbers of the header of a qcow2 image, for those who read and write it
/// (docs/interop/qcow2.txt of QEMU).
namespace crosvm::qcow2_header {

inline constexpr uint32_t kMagic = 0x514649FB;
inline constexpr size_t kLength2 = 72;   ///< of the header of version 2
inline constexpr size_t kLength3 = 104;  ///< at least, of version 3
inline constexpr size_t kMostName = 1023;
// Types of extensions.
inline constexpr uint32_t kBackingFormat = 0xE2792ACA;
inline constexpr uint32_t kReferenceBackingFormat = 0xE279268F;  ///< devices.md 4.2
inline constexpr uint32_t kDataFileName = 0x44415441;
inline constexpr uint32_t kFeatureNames = 0x6803F857;
inline constexpr uint32_t kBitmaps = 0x23852875;
inline constexpr size_t kFeatureNameEntry = 48;

}  // namespace crosvm::qcow2_header
