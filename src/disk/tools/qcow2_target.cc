#include "disk/tools/qcow2_target.h"

#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/format.h"
#include "disk/ordered_packer.h"
#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/decompress.h"
#include "disk/tools/cluster_file.h"

namespace crosvm {
namespace {

/// Header, refcount table and L1 table have their places from the start. Then all else follows as
/// it comes: data, and each L2 table behind what it maps.
class Qcow2Target : public ImageTarget {
 public:
  Qcow2Target(const Fd& file, const Qcow2Header& header, bool compress, const std::string& object)
      : file_(file),
        object_(object),
        header_(header),
        layout_(header.layout()),
        compress_(compress),
        clusters_(file, layout_,
                  (uint64_t{header.refcount_table_clusters} << layout_.cluster_bits) / 8, object),
        l1_(header.l1_entries),
        l2_(layout_.cluster_size()) {
    if (compress) packer_.emplace(packer_options(), [this] { return make_pack(); });
  }

  Result<void> begin();

  uint64_t granule() const override { return layout_.cluster_size(); }
  bool has_backing() const override { return header_.backing_name.has_value(); }
  Result<void> write(uint64_t offset, std::span<const std::byte> bytes) override;
  Result<void> write_zeroes(uint64_t offset, uint64_t length) override;
  Result<void> leave_out(uint64_t, uint64_t) override { return {}; }
  Result<void> finish() override;

 private:
  Result<void> write_plain(uint64_t offset, std::span<const std::byte> bytes);
  Result<void> write_compressed(uint64_t offset, std::span<const std::byte> bytes);
  OrderedPacker::Options packer_options() const { return {.piece_bytes = layout_.cluster_size()}; }
  OrderedPacker::Pack make_pack() const;
  Result<void> put_oldest();
  Result<void> put_all();
  Result<uint64_t> place_compressed(uint64_t length);
  Result<void> set_entry(uint64_t guest, const Qcow2Entry& entry);
  Result<void> put_l2();

  const Fd& file_;
  const std::string object_;
  Qcow2Header header_;
  const Qcow2Layout layout_;
  const bool compress_;
  ClusterFile clusters_;
  std::vector<uint64_t> l1_;
  std::vector<std::byte> l2_;  // that is being filled
  uint64_t l2_index_ = 0;      // in the L1 table
  bool l2_is_empty_ = true;
  uint64_t tail_ = 0;  // offset behind the last compressed cluster; aligned: nothing goes on there
  std::optional<OrderedPacker> packer_;  // of clusters on their way into the file
};

Result<void> Qcow2Target::begin() {
  (void)TRY(with_context(encode_qcow2_header(header_), object_));  // that it can be
  (void)TRY(clusters_.take(1 + header_.refcount_table_clusters + layout_.clusters(l1_.size() * 8)));
  return {};
}

Result<void> Qcow2Target::write(uint64_t offset, std::span<const std::byte> bytes) {
  return compress_ ? write_compressed(offset, bytes) : write_plain(offset, bytes);
}

Result<void> Qcow2Target::write_plain(uint64_t offset, std::span<const std::byte> bytes) {
  const uint64_t count = layout_.clusters(bytes.size());
  const uint64_t host = TRY(clusters_.take(count)) << layout_.cluster_bits;
  TRY(clusters_.write_sparse(host, bytes));  // what is missing of the last one are zeroes
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t done = i << layout_.cluster_bits;
    TRY(set_entry(offset + done, {.word = (host + done) | kQcow2Copied,
                                  .bitmap = layout_.extended_l2 ? kQcow2AllSubclusters : 0}));
  }
  return {};
}

Result<void> Qcow2Target::write_compressed(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min<uint64_t>(bytes.size(), layout_.cluster_size()));
    if (packer_->is_full()) TRY(put_oldest());
    std::vector<std::byte> cluster(part.begin(), part.end());
    cluster.resize(layout_.cluster_size());
    packer_->give(offset, std::move(cluster));
    bytes = bytes.subspan(part.size());
    offset += part.size();
  }
  return {};
}

/// Nothing of a cluster that would not get smaller. Sees only what does not change.
OrderedPacker::Pack Qcow2Target::make_pack() const {
  return [type = header_.compression](std::span<const std::byte> cluster) {
    std::vector<std::byte> packed(cluster.size() - 1);
    packed.resize(compress_cluster(type, cluster, packed));
    return packed;
  };
}

Result<void> Qcow2Target::put_oldest() {
  const OrderedPacker::Packed cluster = packer_->take();
  const size_t length = cluster.packed.size();
  if (length == 0) return write_plain(cluster.tag, cluster.piece);
  const uint64_t host = TRY(place_compressed(length));
  TRY(clusters_.write(host, cluster.packed));
  const uint64_t more_sectors = (host + length - 1) / 512 - host / 512;
  const uint32_t shift = 62 - (layout_.cluster_bits - 8);
  return set_entry(cluster.tag, {.word = kQcow2Compressed | (more_sectors << shift) | host});
}

/// Before anything that must come behind them.
Result<void> Qcow2Target::put_all() {
  while (packer_ && !packer_->is_empty()) TRY(put_oldest());
  return {};
}

/// Behind the one before, if what follows that is free.
Result<uint64_t> Qcow2Target::place_compressed(uint64_t length) {
  const uint64_t used = layout_.in_cluster(tail_);
  const uint64_t room = used == 0 ? 0 : layout_.cluster_size() - used;
  const uint64_t cluster = tail_ >> layout_.cluster_bits;
  const bool fits = room > 0 && (length <= room || clusters_.next() == cluster + 1);
  uint64_t host = tail_;
  if (!fits || !clusters_.share(cluster)) {
    host = TRY(clusters_.take(1)) << layout_.cluster_bits;
  } else if (length > room) {
    (void)TRY(clusters_.take(1));
  }
  tail_ = host + length;
  return host;
}

Result<void> Qcow2Target::write_zeroes(uint64_t offset, uint64_t length) {
  if (!has_backing()) return {};
  TRY(put_all());
  const std::vector<std::byte> zeroes(layout_.version < 3 ? layout_.cluster_size() : 0);
  for (uint64_t at = offset; at < offset + length; at += layout_.cluster_size()) {
    if (layout_.version < 3) {
      TRY(write_plain(at, zeroes));
    } else if (layout_.extended_l2) {
      TRY(set_entry(at, {.bitmap = kQcow2AllSubclusters << kQcow2Subclusters}));
    } else {
      TRY(set_entry(at, {.word = kQcow2Zero}));
    }
  }
  return {};
}

Result<void> Qcow2Target::set_entry(uint64_t guest, const Qcow2Entry& entry) {
  if (layout_.l1_index(guest) != l2_index_) {
    TRY(put_l2());
    l2_index_ = layout_.l1_index(guest);
  }
  const uint64_t at = layout_.l2_index(guest) * layout_.entry_size();
  store_big_endian(l2_, at, entry.word);
  if (layout_.extended_l2) store_big_endian(l2_, at + 8, entry.bitmap);
  l2_is_empty_ = false;
  return {};
}

Result<void> Qcow2Target::put_l2() {
  if (l2_is_empty_) return {};
  const uint64_t host = TRY(clusters_.take(1)) << layout_.cluster_bits;
  TRY(clusters_.write(host, l2_));
  l1_[l2_index_] = host | kQcow2Copied;
  std::ranges::fill(l2_, std::byte{0});
  l2_is_empty_ = true;
  return {};
}

std::vector<std::byte> big_endian(std::span<const uint64_t> numbers) {
  std::vector<std::byte> bytes(numbers.size() * 8);
  for (size_t i = 0; i < numbers.size(); ++i) store_big_endian(bytes, i * 8, numbers[i]);
  return bytes;
}

Result<void> Qcow2Target::finish() {
  TRY(put_all());
  TRY(put_l2());
  TRY(clusters_.write(header_.l1_offset, big_endian(l1_)));
  const std::vector<uint64_t> blocks = TRY(clusters_.finish());
  TRY(clusters_.write(header_.refcount_table_offset, big_endian(blocks)));
  const uint64_t end = clusters_.next() << layout_.cluster_bits;
  if (::ftruncate(file_.get(), static_cast<off_t>(end)) != 0) {
    return fail(Error::from_errno("making", object_));
  }
  return clusters_.write(0, TRY(with_context(encode_qcow2_header(header_), object_)));
}

/// Gives the tables places that suffice whatever the disk holds.
void place_tables(Qcow2Header& header, uint64_t l1_entries) {
  const Qcow2Layout layout = header.layout();
  const uint64_t most = kQcow2MostRefcountTableBytes >> layout.cluster_bits;
  const uint64_t l1_clusters = layout.clusters(l1_entries * 8);
  uint64_t table = 1;
  while (table < most) {
    const uint64_t counted = 1 + table + l1_clusters + layout.clusters(header.size) + l1_entries;
    const uint64_t blocks = counted / (layout.refcounts_per_block() - 1) + 2;
    if (layout.clusters(blocks * 8) <= table) break;
    table = std::min(most, layout.clusters(blocks * 8));
  }
  header.refcount_table_offset = layout.cluster_size();
  header.refcount_table_clusters = static_cast<uint32_t>(table);
  header.l1_offset = (1 + table) << layout.cluster_bits;
  header.l1_entries = static_cast<uint32_t>(l1_entries);
}

}  // namespace

Result<std::unique_ptr<ImageTarget>> make_qcow2_target(const Fd& file, const Qcow2Header& header,
                                                       bool compress, const std::string& object) {
  Qcow2Header made = header;
  // A table of no entries would have no cluster.
  const uint64_t l1_entries = std::max<uint64_t>(1, header.layout().l1_entries(header.size));
  if (l1_entries > kQcow2MostL1Entries) {
    return fail(
        Error(std::errc::file_too_large,
              format_text("{}: clusters of {} bytes are too small for a disk of {}; use a larger "
                          "--cluster-size",
                          object, header.layout().cluster_size(), header.size)));
  }
  place_tables(made, l1_entries);
  auto target = std::make_unique<Qcow2Target>(file, made, compress, object);
  TRY(target->begin());
  return target;
}

}  // namespace crosvm
