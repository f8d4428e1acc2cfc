#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "base/format.h"
#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_header_fields.h"

namespace crosvm {
namespace {

using namespace qcow2_header;

void append_extension(std::vector<std::byte>& out, uint32_t type, std::string_view data) {
  const size_t at = out.size();
  out.resize(at + 8 + ((data.size() + 7) & ~size_t{7}));
  store_big_endian<uint32_t>(out, at, type);
  store_big_endian<uint32_t>(out, at + 4, static_cast<uint32_t>(data.size()));
  std::memcpy(out.data() + at + 8, data.data(), data.size());
}

struct FeatureName {
  uint8_t type;
  uint8_t bit;
  std::string_view name;
};
constexpr std::array<FeatureName, 8> kFeatures = {{{0, 0, "dirty bit"},
                                                   {0, 1, "corrupt bit"},
                                                   {0, 2, "external data file"},
                                                   {0, 3, "compression type"},
                                                   {0, 4, "extended L2 entries"},
                                                   {1, 0, "lazy refcounts"},
                                                   {2, 0, "bitmaps"},
                                                   {2, 1, "raw external data"}}};

std::string feature_table() {
  std::string table;
  for (const FeatureName& feature : kFeatures) {
    table += static_cast<char>(feature.type);
    table += static_cast<char>(feature.bit);
    table += feature.name;
    table.resize((table.size() + kFeatureNameEntry - 1) / kFeatureNameEntry * kFeatureNameEntry);
  }
  return table;
}

}  // namespace

void patch_qcow2_header(const Qcow2Header& header, std::span<std::byte> start) {
  store_big_endian(start, 24, header.size);
  store_big_endian(start, 36, header.l1_entries);
  store_big_endian(start, 40, header.l1_offset);
  store_big_endian(start, 48, header.refcount_table_offset);
  store_big_endian(start, 56, header.refcount_table_clusters);
  if (header.version < 3) return;
  store_big_endian(start, 72, header.incompatible);
  store_big_endian(start, 80, header.compatible);
  store_big_endian(start, 88, header.autoclear);
}

Result<std::vector<std::byte>> encode_qcow2_header(const Qcow2Header& header) {
  const bool is_v3 = header.version >= 3;
  const size_t length = is_v3 ? kLength3 + 8 : kLength2;
  std::vector<std::byte> out(length);
  store_big_endian(out, 0, kMagic);
  store_big_endian(out, 4, header.version);
  store_big_endian(out, 20, header.cluster_bits);
  store_big_endian(out, 60, header.snapshots);
  store_big_endian(out, 64, header.snapshots_offset);
  patch_qcow2_header(header, out);
  if (is_v3) {
    store_big_endian(out, 96, header.refcount_order);
    store_big_endian(out, 100, static_cast<uint32_t>(length));
    out[kLength3] = static_cast<std::byte>(header.compression);
  }
  if (header.backing_format) append_extension(out, kBackingFormat, *header.backing_format);
  if (header.data_file_name) append_extension(out, kDataFileName, *header.data_file_name);
  const size_t cluster = size_t{1} << header.cluster_bits;
  const std::string names = feature_table();
  const size_t backing = header.backing_name ? header.backing_name->size() : 0;
  // In small clusters the names of features give way.
  if (is_v3 && out.size() + names.size() + 16 + backing <= cluster) {
    append_extension(out, kFeatureNames, names);
  }
  append_extension(out, 0, "");
  if (backing > kMostName || out.size() + backing > cluster) {
    return fail(
        Error::invalid(format_text("the names of backing and data file do not "
                                   "fit into a cluster of {} bytes; "
                                   "use shorter names or larger clusters",
                                   cluster)));
  }
  if (header.backing_name) {
    store_big_endian(out, 8, uint64_t{out.size()});
    store_big_endian(out, 16, static_cast<uint32_t>(backing));
    const auto name = std::as_bytes(std::span(*header.backing_name));
    out.insert(out.end(), name.begin(), name.end());
  }
  out.resize(cluster);
  return out;
}

}  // namespace crosvm
