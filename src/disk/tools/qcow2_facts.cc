#include "disk/tools/qcow2_facts.h"

#include <algorithm>
#include <array>

#include "disk/qcow2/big_endian.h"

namespace crosvm {
namespace {

constexpr size_t kEntry = 40;      // bytes of an entry of the snapshot table, before what varies
constexpr size_t kMostText = 255;  // bytes of a name; a longer one is cut

Result<std::string> read_text(SyncFile& file, uint64_t offset, size_t length) {
  std::string text(std::min(length, kMostText), '\0');
  TRY(file.read_at(offset, std::as_writable_bytes(std::span(text))));
  return text;
}

}  // namespace

Result<Qcow2Header> read_qcow2_header(SyncFile& file, const std::string& object) {
  std::vector<std::byte> start(std::min<uint64_t>(kQcow2MostHeaderBytes, file.size()));
  TRY(file.read_at(0, start));
  return parse_qcow2_header(start, file.size(), object);
}

Result<std::vector<Qcow2SnapshotName>> read_qcow2_snapshots(SyncFile& file,
                                                            const Qcow2Header& header,
                                                            const std::string& object) {
  std::vector<Qcow2SnapshotName> names;
  uint64_t at = header.snapshots_offset;
  for (uint32_t i = 0; i < header.snapshots; ++i) {
    if (at + kEntry > file.size()) {
      return fail(Error::invalid(object + ": its snapshot table is cut off; the qcow2 image is "
                                          "damaged"));
    }
    std::array<std::byte, kEntry> entry;
    TRY(file.read_at(at, entry));
    const auto id_bytes = load_big_endian<uint16_t>(entry, 12);
    const auto name_bytes = load_big_endian<uint16_t>(entry, 14);
    const uint64_t id_at = at + kEntry + load_big_endian<uint32_t>(entry, 36);
    names.push_back({.id = TRY(read_text(file, id_at, id_bytes)),
                     .name = TRY(read_text(file, id_at + id_bytes, name_bytes))});
    at = (id_at + id_bytes + name_bytes + 7) & ~uint64_t{7};
  }
  return names;
}

}  // namespace crosvm
