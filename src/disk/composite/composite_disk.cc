#include "disk/composite/composite_disk.h"

#include <algorithm>
#include <utility>

#include "base/format.h"

namespace crosvm {

CompositeDisk::CompositeDisk(const CompositeDescriptor& descriptor,
                             std::vector<std::unique_ptr<Disk>> components, bool read_only)
    : SplitDisk(descriptor.length, read_only, std::move(components)),
      parts_(descriptor.components) {}

Result<std::unique_ptr<CompositeDisk>> CompositeDisk::create(
    const CompositeDescriptor& descriptor, std::vector<std::unique_ptr<Disk>> components,
    bool read_only, const std::string& object) {
  CHECK(components.size() == descriptor.components.size());
  for (size_t i = 0; i < components.size(); ++i) {
    const CompositeComponent& part = descriptor.components[i];
    const uint64_t reached = part.file_offset + part.length;
    if (components[i]->size() >= reached) continue;
    return fail(Error::invalid(format_text(
        "{}: its component {} has {} bytes and should have {}; put the whole file there, or make "
        "the composite disk again with create_composite",
        object, part.path, components[i]->size(), reached)));
  }
  return std::unique_ptr<CompositeDisk>(
      new CompositeDisk(descriptor, std::move(components), read_only));
}

SplitDisk::Piece CompositeDisk::piece_at(uint64_t offset) const {
  const auto next = std::ranges::upper_bound(parts_, offset, {}, &CompositeComponent::offset);
  const CompositeComponent& part = *std::prev(next);
  const uint64_t inside = offset - part.offset;
  return {.below = static_cast<size_t>(std::prev(next) - parts_.begin()),
          .offset = part.file_offset + inside,
          .length = part.length - inside,
          .writable = part.writable};
}

}  // namespace crosvm
