#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// A file that is part of a composite disk.
struct CompositeComponent {
  std::string path;          ///< as written: absolute, or from the folder of the composite disk
  uint64_t offset = 0;       ///< on the disk, in bytes
  uint64_t length = 0;       ///< on the disk; not written down, but follows from the next offset
  uint64_t file_offset = 0;  ///< of its first byte in the file
  bool writable = false;
};

/// What the file of a composite disk says (devices.md 4.2).
struct CompositeDescriptor {
  static constexpr size_t kMostBytes = 1 << 20;    ///< of the file
  static constexpr size_t kMostComponents = 1024;  ///< each is an open file
  static constexpr size_t kMostPathBytes = 4096 - 1;
  static constexpr uint64_t kVersion = 2;  ///< the newest; 1 differs in nothing that matters here

  uint64_t length = 0;                         ///< of the disk, in bytes
  std::vector<CompositeComponent> components;  ///< ascending, from 0 to the length without a gap
};

/// Takes the bytes of such a file apart and checks that its parts make a disk. Opens nothing.
/// Errors: invalid_argument for what is malformed, not_supported for another version; `object`
/// names the file.
Result<CompositeDescriptor> parse_composite(std::span<const std::byte> bytes,
                                            const std::string& object);

/// The same for an open file, which may be open for direct I/O.
Result<CompositeDescriptor> read_composite(const Fd& file, const std::string& object);

/// The bytes of the file. Lengths of components are not looked at: each reaches to the next.
std::string composite_bytes(const CompositeDescriptor& descriptor);

}  // namespace crosvm
