#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "disk/image_reader.h"

namespace crosvm {

/// Where the frames of a zstd file are, and what each makes. Found when the file is opened, without
/// decoding it: from the table of the seekable format, else by walking from block to block.
class ZstdIndex {
 public:
  /// 512 GiB of frames of 128 KiB, which a jail of 256 MiB can hold beside the disk's buffers.
  static constexpr size_t kMostFrames = 1 << 22;
  /// What the frames and the buffers for the longest of them may take together.
  static constexpr uint64_t kMostMemory = uint64_t{208} << 20;

  struct Frame {
    uint64_t file_offset = 0;
    uint64_t start = 0;  ///< of what it makes, in bytes
    uint32_t file_bytes = 0;
    uint32_t checksum = 0;  ///< low half of XXH64, where there are checksums
  };

  /// Frames without a size are decoded to learn it, together at most zstd::kMostFrame bytes.
  /// Errors: not_supported for frames too large or too many for random access, with the command
  /// that converts the file, and for frames that need a dictionary; invalid_argument for what the
  /// formats forbid; else those of reading.
  static Result<ZstdIndex> read(ImageReader& image);

  uint64_t size() const { return size_; }  ///< of all that is made, in bytes
  size_t frames() const { return frames_.size(); }
  bool has_checksums() const { return has_checksums_; }
  const Frame& frame(size_t number) const { return frames_[number]; }
  /// Bytes that a frame makes; not 0.
  uint64_t length(size_t number) const {
    return (number + 1 < frames_.size() ? frames_[number + 1].start : size_) -
           frames_[number].start;
  }
  /// The frame that makes the byte at `offset`, which is less than the size.
  size_t find(uint64_t offset) const;
  uint64_t longest_frame() const { return longest_frame_; }            ///< decoded, in bytes
  uint64_t longest_file_bytes() const { return longest_file_bytes_; }  ///< of a frame in the file

 private:
  friend class ZstdTable;
  friend class ZstdWalk;
  Result<void> add(uint64_t file_offset, uint64_t file_bytes, uint64_t length, uint32_t checksum,
                   const std::string& object);

  Result<void> check_memory(const std::string& object) const;

  std::deque<Frame> frames_;  // that make anything, in order; grows without being copied
  uint64_t size_ = 0;
  uint64_t longest_frame_ = 0;
  uint64_t longest_file_bytes_ = 0;
  bool has_checksums_ = false;
};

}  // namespace crosvm
