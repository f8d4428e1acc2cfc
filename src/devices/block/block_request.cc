#include "devices/block/block_request.h"

#include <linux/virtio_blk.h>

#include <algorithm>
#include <cstring>

#include "devices/block/block_queue.h"

namespace crosvm {
namespace {

constexpr uint64_t kSector = BlockConfig::kSectorSize;

struct Header {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};

struct WireSegment {
  uint64_t sector;
  uint32_t num_sectors;
  uint32_t flags;
};
static_assert(sizeof(WireSegment) == sizeof(virtio_blk_discard_write_zeroes));

/// The place of `sector` in bytes, when `length` bytes from there lie on the disk.
std::optional<uint64_t> place_of(uint64_t sector, uint64_t length, const BlockRules& rules) {
  if (sector > rules.size / kSector) return std::nullopt;
  uint64_t offset = sector * kSector;
  if (length > rules.size - offset) return std::nullopt;
  return offset;
}

/// The slices of [offset, offset + length), which lie inside; `to` keeps its storage.
void cut_into(const ChainBuffers& from, uint64_t offset, uint64_t length,
              std::vector<GuestSlice>& to) {
  to.clear();
  for (const GuestSlice& slice : from.slices()) {
    if (length == 0) return;
    if (offset >= slice.size()) {
      offset -= slice.size();
      continue;
    }
    size_t part = std::min<uint64_t>(length, slice.size() - offset);
    if (auto cut = slice.sub(offset, part)) to.push_back(*cut);
    length -= part;
    offset = 0;
  }
}

}  // namespace

std::optional<uint8_t> BlockRequest::begin(DescriptorChain chain, const BlockRules& rules) {
  chain_.emplace(std::move(chain));
  data_written_ = 0;
  segment_count_ = next_segment_ = 0;
  auto header = chain_->device_readable().read<Header>();
  if (!header || chain_->device_writable().size() == 0) return VIRTIO_BLK_S_IOERR;
  switch (header->type) {
    case VIRTIO_BLK_T_IN:
      return transfer(Kind::kRead, header->sector, rules);
    case VIRTIO_BLK_T_GET_ID:
      return give_id(rules);
    default:
      return modify(header->type, header->sector, rules);
  }
}

std::optional<uint8_t> BlockRequest::modify(uint32_t type, uint64_t sector,
                                            const BlockRules& rules) {
  switch (type) {
    case VIRTIO_BLK_T_OUT:
    case VIRTIO_BLK_T_FLUSH:
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
      break;
    default:
      return VIRTIO_BLK_S_UNSUPP;
  }
  if (rules.read_only) return VIRTIO_BLK_S_IOERR;
  if (type == VIRTIO_BLK_T_OUT) return transfer(Kind::kWrite, sector, rules);
  if (type == VIRTIO_BLK_T_WRITE_ZEROES) return read_segments(Kind::kWriteZeroes, rules);
  if (type == VIRTIO_BLK_T_DISCARD) {
    if (!rules.sparse) return VIRTIO_BLK_S_OK;  // a hint that is not taken
    return read_segments(Kind::kDiscard, rules);
  }
  become_flush();
  return std::nullopt;
}

void BlockRequest::become_flush() {
  kind = Kind::kFlush;
  offset = length = 0;
  buffers.clear();
}

uint8_t BlockRequest::give_id(const BlockRules& rules) {
  ChainBuffers writable = chain_->device_writable();
  if (writable.size() < rules.id.size() + 1) return VIRTIO_BLK_S_IOERR;
  if (!writable.write_bytes(0, rules.id)) return VIRTIO_BLK_S_IOERR;
  data_written_ = static_cast<uint32_t>(rules.id.size());
  return VIRTIO_BLK_S_OK;
}

std::optional<uint8_t> BlockRequest::transfer(Kind transfer, uint64_t sector,
                                              const BlockRules& rules) {
  bool reads = transfer == Kind::kRead;
  ChainBuffers data = reads ? chain_->device_writable() : chain_->device_readable();
  uint64_t start = reads ? 0 : sizeof(Header);
  uint64_t bytes = reads ? data.size() - 1 : data.size() - sizeof(Header);
  auto place = place_of(sector, bytes, rules);
  if (!place) return VIRTIO_BLK_S_IOERR;
  if (bytes == 0) return VIRTIO_BLK_S_OK;
  kind = transfer;
  offset = *place;
  length = bytes;
  cut_into(data, start, bytes, buffers);
  if (reads) data_written_ = static_cast<uint32_t>(bytes);
  return std::nullopt;
}

std::optional<uint8_t> BlockRequest::read_segments(Kind segments, const BlockRules& rules) {
  ChainBuffers readable = chain_->device_readable();
  uint64_t count = (readable.size() - sizeof(Header)) / sizeof(WireSegment);
  if (count > kMostSegments) return VIRTIO_BLK_S_IOERR;
  std::array<WireSegment, kMostSegments> wire;
  std::span<std::byte> bytes = std::as_writable_bytes(std::span(wire).first(count));
  if (!readable.read_bytes(sizeof(Header), bytes)) return VIRTIO_BLK_S_IOERR;
  uint32_t allowed = segments == Kind::kWriteZeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
  for (size_t i = 0; i < count; ++i) {
    const WireSegment& segment = wire[i];
    uint64_t size = segment.num_sectors * kSector;
    auto place = place_of(segment.sector, size, rules);
    if (!place || (segment.flags & ~allowed) != 0) return VIRTIO_BLK_S_IOERR;
    segments_[i] = {.offset = *place, .length = size, .unmap = segment.flags != 0 && rules.sparse};
  }
  kind = segments;
  buffers.clear();
  segment_count_ = count;
  if (!next_segment()) return VIRTIO_BLK_S_OK;
  return std::nullopt;
}

bool BlockRequest::next_segment() {
  if (next_segment_ == segment_count_) return false;
  const Segment& segment = segments_[next_segment_++];
  offset = segment.offset;
  length = segment.length;
  may_unmap = segment.unmap;
  return true;
}

DescriptorChain BlockRequest::end(uint8_t status, uint32_t& written) {
  ChainBuffers writable = chain_->device_writable();
  written = 0;
  // The last byte, wherever the driver cut its buffers. It lies inside: writing cannot fail.
  if (writable.size() > 0 && writable.write(writable.size() - 1, status)) {
    written = status == VIRTIO_BLK_S_OK ? data_written_ + 1 : 1;
  }
  DescriptorChain chain = *std::move(chain_);
  chain_.reset();
  return chain;
}

void BlockRequest::disk_done(int error) { queue_.io_done(*this, error); }

}  // namespace crosvm
