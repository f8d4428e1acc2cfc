#include "disk/qcow2/qcow2_bitmaps.h"

#include <cstddef>
#include <span>

#include "base/format.h"
#include "disk/qcow2/big_endian.h"

namespace crosvm {
namespace {

constexpr uint64_t kEntry = 24;  // bytes of a directory entry, before what varies
constexpr uint64_t kMostDirectoryBytes = 64 << 20;

}  // namespace

Result<std::vector<Qcow2Bitmap>> read_qcow2_bitmaps(SyncFile& file, const Qcow2Header& header,
                                                    const std::string& object) {
  std::vector<Qcow2Bitmap> bitmaps;
  if (!header.has_bitmaps()) return bitmaps;
  const Qcow2BitmapDirectory& place = *header.bitmaps;
  auto broken = [&](std::string_view why) {
    return fail(Error::invalid(format_text(
        "{}: the directory of its dirty bitmaps at {:#x} {}; the qcow2 image is damaged", object,
        place.offset, why)));
  };
  if (place.bytes > kMostDirectoryBytes || place.offset > file.size() ||
      place.bytes > file.size() - place.offset) {
    return broken(format_text("has {} bytes, and does not fit", place.bytes));
  }
  std::vector<std::byte> bytes(place.bytes);
  TRY(file.read_at(place.offset, bytes));
  uint64_t at = 0;
  while (at < bytes.size()) {
    if (bytes.size() - at < kEntry) return broken("ends within an entry");
    const std::span<const std::byte> entry = std::span(bytes).subspan(at);
    const uint64_t name_bytes = load_big_endian<uint16_t>(entry, 18);
    const uint64_t extra_bytes = load_big_endian<uint32_t>(entry, 20);
    if (entry.size() < kEntry + extra_bytes + name_bytes) return broken("ends within an entry");
    const auto name = entry.subspan(kEntry + extra_bytes, name_bytes);
    bitmaps.push_back({.name = {reinterpret_cast<const char*>(name.data()), name.size()},
                       .table_offset = load_big_endian<uint64_t>(entry, 0),
                       .table_entries = load_big_endian<uint32_t>(entry, 8)});
    at += (kEntry + extra_bytes + name_bytes + 7) & ~uint64_t{7};
  }
  if (bitmaps.size() != place.count) {
    return broken(format_text("has {} entries instead of {}", bitmaps.size(), place.count));
  }
  return bitmaps;
}

}  // namespace crosvm
