#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "devices/block/block_config.h"
#include "disk/disk.h"
#include "disk/flush_errors.h"
#include "virtio/descriptor_chain.h"

namespace crosvm {

class BlockQueue;

/// What requests are judged by.
struct BlockRules {
  uint64_t size = 0;  ///< bytes; beyond lies nothing
  bool read_only = false;
  bool sparse = true;
  /// The driver knows of no flush: what it changes is stable before it is told (virtio 1.3
  /// §5.2.6.2).
  bool write_through = false;
  /// How long written data may stay in the host's cache when the driver never flushes.
  std::chrono::milliseconds flush_after = std::chrono::seconds(60);
  std::array<std::byte, BlockConfig::kIdBytes> id = {};  ///< padded with zeroes
  /// One for all workers, whose disks are one open file.
  std::shared_ptr<FlushErrors> flush_errors = std::make_shared<FlushErrors>();
};

/// One request of the driver (virtio 1.3 §5.2.6): a header, data, and a status byte that comes last
/// in the device-writable part. Kept for the next request when it is done.
class BlockRequest final : public DiskRequest {
 public:
  static constexpr size_t kMostSegments = 32;  ///< of a discard; the configuration says so

  explicit BlockRequest(BlockQueue& queue) : queue_(queue) {}

  /// Takes the chain and looks at it, once. The status that it ends with, or nothing: there is I/O
  /// to do, which the DiskRequest describes.
  std::optional<uint8_t> begin(DescriptorChain chain, const BlockRules& rules);
  /// Describes the next segment of a discard; false when there is none.
  bool next_segment();
  /// Becomes the flush of what it has done.
  void become_flush();
  /// Writes the status and gives up the chain. `written`: bytes that the device has written.
  DescriptorChain end(uint8_t status, uint32_t& written);

  void disk_done(int error) override;

  FlushErrors::Flush flush;  ///< while it is one

 private:
  struct Segment {
    uint64_t offset;
    uint64_t length;
    bool unmap;
  };

  uint8_t give_id(const BlockRules& rules);
  std::optional<uint8_t> transfer(Kind transfer, uint64_t sector, const BlockRules& rules);
  std::optional<uint8_t> read_segments(Kind segments, const BlockRules& rules);
  std::optional<uint8_t> modify(uint32_t type, uint64_t sector, const BlockRules& rules);

  BlockQueue& queue_;
  std::optional<DescriptorChain> chain_;
  uint32_t data_written_ = 0;  // to the driver, if it goes well
  std::array<Segment, kMostSegments> segments_ = {};
  size_t segment_count_ = 0;
  size_t next_segment_ = 0;
};

}  // namespace crosvm
