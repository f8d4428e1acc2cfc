#pragma once

#include <memory>
#include <string>
#include <vector>

#include "disk/composite/composite_descriptor.h"
#include "disk/split_disk.h"

namespace crosvm {

/// A disk made of the bytes of others, one after the other (devices.md 4.2). A write to a component
/// that is not writable ends with EROFS. A flush reaches the components that were written to since
/// the last one. Is not resized.
class CompositeDisk final : public SplitDisk {
 public:
  /// `components` are what the descriptor names, in its order. Errors: invalid_argument when one is
  /// shorter than its part of the disk; `object` names the composite disk.
  static Result<std::unique_ptr<CompositeDisk>> create(
      const CompositeDescriptor& descriptor, std::vector<std::unique_ptr<Disk>> components,
      bool read_only, const std::string& object);

 protected:
  Piece piece_at(uint64_t offset) const override;

 private:
  CompositeDisk(const CompositeDescriptor& descriptor,
                std::vector<std::unique_ptr<Disk>> components, bool read_only);

  const std::vector<CompositeComponent> parts_;  // ascending, without a gap
};

}  // namespace crosvm
