#include "disk/qcow2/qcow2_create.h"

#include <algorithm>
#include <bit>

#include "base/format.h"
#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_metadata.h"

namespace crosvm {
namespace {

std::unexpected<Error> refuse(const std::string& object, const std::string& what) {
  return fail(Error::invalid(format_text("{}: {}", object, what)));
}

Result<void> check_options(const Qcow2CreateOptions& options, const std::string& object) {
  const uint64_t cluster = options.cluster_size;
  if (!std::has_single_bit(cluster) || cluster < 512 || cluster > (2 << 20)) {
    return refuse(object,
                  format_text("cluster_size={}: use a power of two from 512 to 2097152", cluster));
  }
  if (options.version != 2 && options.version != 3) {
    return refuse(object, format_text("version={}: use 2 or 3", options.version));
  }
  if (!std::has_single_bit(options.refcount_bits) || options.refcount_bits > 64) {
    return refuse(object, format_text("refcount_bits={}: use a power of two up to 64",
                                      options.refcount_bits));
  }
  if (options.size % 512 != 0 || options.size > INT64_MAX) {
    return refuse(object, format_text("a size of {} bytes: use a multiple of 512", options.size));
  }
  if (options.extended_l2 && cluster < 16384) {
    return refuse(object, "extended_l2 needs clusters of at least 16384 bytes");
  }
  const bool needs_3 = options.extended_l2 || options.lazy_refcounts || options.data_file_name ||
                       options.refcount_bits != 16 ||
                       options.compression != Qcow2Compression::kZlib;
  if (options.version == 2 && needs_3) return refuse(object, "its options need version=3");
  if (options.raw_data && (!options.data_file_name || options.backing_name)) {
    return refuse(object, "a raw data file needs a data file and no backing file");
  }
  if (options.backing_name && options.preallocation != Qcow2Preallocation::kOff &&
      !options.extended_l2) {
    return refuse(object, "preallocation with a backing file needs extended_l2");
  }
  return {};
}

Qcow2Header header_of(const Qcow2CreateOptions& options) {
  Qcow2Header header;
  header.version = options.version;
  header.cluster_bits = static_cast<uint32_t>(std::countr_zero(options.cluster_size));
  header.size = options.size;
  header.refcount_order = static_cast<uint32_t>(std::countr_zero(options.refcount_bits));
  header.compression = options.compression;
  if (options.extended_l2) header.incompatible |= kQcow2IncompatibleExtendedL2;
  if (options.data_file_name) header.incompatible |= kQcow2IncompatibleDataFile;
  if (options.compression != Qcow2Compression::kZlib) {
    header.incompatible |= kQcow2IncompatibleCompression;
  }
  if (options.lazy_refcounts) header.compatible |= kQcow2CompatibleLazyRefcounts;
  if (options.raw_data) header.autoclear |= kQcow2AutoclearRawData;
  header.backing_name = options.backing_name;
  header.backing_format = options.backing_format;
  header.data_file_name = options.data_file_name;
  return header;
}

/// Header, refcount table, its blocks and the L1 table, one after the other.
Result<void> write_empty(SyncFile& file, Qcow2Header& header, const std::string& object) {
  const Qcow2Layout layout = header.layout();
  // A table of no entries would have no cluster.
  const uint64_t l1_entries = std::max<uint64_t>(1, layout.l1_entries(header.size));
  if (l1_entries > kQcow2MostL1Entries) {
    return refuse(object, format_text("{} bytes are too many for clusters of {} bytes", header.size,
                                      layout.cluster_size()));
  }
  const uint64_t l1_clusters = layout.clusters(l1_entries * 8);
  const uint64_t per_block = layout.refcounts_per_block();
  uint64_t blocks = 1;
  uint64_t table_clusters = 1;
  while (true) {
    const uint64_t all = 1 + table_clusters + blocks + l1_clusters;
    const uint64_t wanted = (all + per_block - 1) / per_block;
    if (wanted <= blocks && layout.clusters(blocks * 8) <= table_clusters) break;
    blocks = std::max(blocks, wanted);
    table_clusters = layout.clusters(blocks * 8);
  }
  const uint64_t all = 1 + table_clusters + blocks + l1_clusters;
  header.refcount_table_offset = layout.cluster_size();
  header.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
  header.l1_entries = static_cast<uint32_t>(l1_entries);
  header.l1_offset = (1 + table_clusters + blocks) << layout.cluster_bits;
  TRY(file.resize(all << layout.cluster_bits));
  std::vector<std::byte> table(table_clusters << layout.cluster_bits);
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t offset = (1 + table_clusters + i) << layout.cluster_bits;
    store_big_endian(table, i * 8, offset);
    std::vector<std::byte> block(layout.cluster_size());
    for (uint64_t j = 0; j < per_block && i * per_block + j < all; ++j) {
      store_refcount(block, j, layout.refcount_order, 1);
    }
    TRY(file.write_at(offset, block));
  }
  TRY(file.write_at(header.refcount_table_offset, table));
  auto start = TRY(with_context(encode_qcow2_header(header), object));
  TRY(file.write_at(0, start));
  return file.flush();
}

Result<void> satisfy(Qcow2Metadata& metadata, const Qcow2Need& need, SyncFile& file,
                     const std::string& object) {
  if (need.kind == Qcow2Need::Kind::kFailed) {
    return fail(Error::from_errno("preallocating", object, need.error));
  }
  if (need.kind == Qcow2Need::Kind::kFileSize) {
    TRY(file.resize(need.value));
    metadata.refcounts().set_file_bytes(file.size());
    return {};
  }
  std::vector<std::byte> bytes(metadata.layout().cluster_size());
  TRY(file.read_at(need.value, bytes));
  metadata.add_loaded(need, bytes);
  return {};
}

Result<void> fill(SyncFile& file, uint64_t offset, uint64_t length) {
  const std::vector<std::byte> zeroes(std::min<uint64_t>(length, 1 << 20));
  for (uint64_t end = offset + length; offset < end;) {
    const uint64_t piece = std::min<uint64_t>(zeroes.size(), end - offset);
    TRY(file.write_at(offset, std::span(zeroes).first(piece)));
    offset += piece;
  }
  return {};
}

/// Gives every cluster of the disk a place.
Result<void> preallocate(SyncFile& file, const Qcow2CreateOptions& options,
                         const std::string& object) {
  auto metadata = TRY(Qcow2Metadata::open(file, object, false, {}));
  const Qcow2Layout& layout = metadata->layout();
  uint64_t guest = 0;
  while (guest < options.size) {
    CachedTable* table;
    Qcow2Need need = metadata->l2().writable_table(guest, table, metadata->freed());
    Refcounts::Allocated place;
    const uint64_t left =
        layout.clusters(std::min(options.size - guest, metadata->l2().bytes_to_table_end(guest)));
    if (need.is_nothing() && layout.external_data) {
      place.run = {.first = guest >> layout.cluster_bits, .count = left};
    } else if (need.is_nothing()) {
      need = metadata->refcounts().allocate(left, ClusterUse::kData, place);
    }
    if (!need.is_nothing()) {
      TRY(satisfy(*metadata, need, file, object));
      continue;
    }
    const uint64_t host = place.run.first << layout.cluster_bits;
    const uint64_t bytes = place.run.count << layout.cluster_bits;
    if (!layout.external_data && options.preallocation == Qcow2Preallocation::kFull) {
      TRY(fill(file, host, bytes));
    } else if (!layout.external_data && options.preallocation == Qcow2Preallocation::kFalloc) {
      TRY(file.allocate(host, bytes));
    }
    for (uint64_t i = 0; i < place.run.count; ++i) {
      Qcow2Entry entry{.word = (host + (i << layout.cluster_bits)) | kQcow2Copied};
      // Over a backing file the place is reserved, but the bytes are still that file's.
      if (layout.extended_l2) entry.bitmap = options.backing_name ? 0 : kQcow2AllSubclusters;
      metadata->l2().set_entry(*table, guest + (i << layout.cluster_bits), entry);
    }
    guest += bytes;
    if (metadata->is_heavy()) TRY(metadata->commit_and_wait(file));
  }
  return metadata->commit_and_wait(file);
}

}  // namespace

Result<void> create_qcow2(SyncFile& file, const Qcow2CreateOptions& options,
                          const std::string& object) {
  TRY(check_options(options, object));
  Qcow2Header header = header_of(options);
  TRY(write_empty(file, header, object));
  if (options.preallocation == Qcow2Preallocation::kOff && !options.raw_data) return {};
  return preallocate(file, options, object);
}

}  // namespace crosvm
