#include "virtio/shared_memory.h"

#include <unistd.h>

#include <iterator>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

bool whole_pages(uint64_t bytes) {
  static const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return bytes % page == 0;
}

Error about(const SharedPlace& place, std::errc code, std::string_view why) {
  return Error(code, format_text("{:#x} bytes at {:#x} of shared memory region {}: {}",
                                 place.length, place.offset, place.id, why));
}

}  // namespace

Result<void> SharedMemoryTable::check(const SharedPlace& place) const {
  const auto invalid = [&](const char* why) {
    return fail(about(place, std::errc::invalid_argument, why));
  };
  if (place.id >= sizes_.size() || sizes_[place.id] == 0) return invalid("there is no such region");
  const uint64_t size = sizes_[place.id];
  if (!whole_pages(place.offset) || !whole_pages(place.length)) return invalid("no whole pages");
  if (place.length == 0) return invalid("that is nothing");
  if (place.offset > size || place.length > size - place.offset) return invalid("past its end");
  return {};
}

Result<void> SharedMemoryTable::map(const SharedPlace& place, SharedFile file) {
  TRY(check(place));
  if (!whole_pages(file.offset) || file.offset > INT64_MAX ||
      place.length > INT64_MAX - file.offset) {
    return fail(about(place, std::errc::invalid_argument, "no place in a file"));
  }
  std::map<uint64_t, uint64_t>& region = mapped_[place.id];
  const auto next = region.lower_bound(place.offset);
  const bool over_next = next != region.end() && next->first < place.offset + place.length;
  const bool over_previous =
      next != region.begin() && std::prev(next)->first + std::prev(next)->second > place.offset;
  if (over_next || over_previous) {
    return fail(about(place, std::errc::file_exists, "something is mapped there"));
  }
  if (count_ == kMostMappings) {
    return fail(about(place, std::errc::no_buffer_space, "as much is mapped as may be"));
  }
  TRY(listener_.map(place, std::move(file)));
  region.emplace(place.offset, place.length);
  ++count_;
  return {};
}

Result<void> SharedMemoryTable::unmap(const SharedPlace& place) {
  TRY(check(place));
  std::map<uint64_t, uint64_t>& region = mapped_[place.id];
  const auto found = region.find(place.offset);
  if (found == region.end() || found->second != place.length) {
    return fail(about(place, std::errc::invalid_argument, "nothing is mapped just there"));
  }
  region.erase(found);
  --count_;
  listener_.unmap(place);
  return {};
}

void SharedMemoryTable::clear() {
  for (size_t id = 0; id < mapped_.size(); ++id) {
    for (const auto& [offset, length] : std::exchange(mapped_[id], {})) {
      listener_.unmap({.id = static_cast<uint8_t>(id), .offset = offset, .length = length});
    }
  }
  count_ = 0;
}

}  // namespace crosvm
