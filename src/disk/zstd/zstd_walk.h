#pragma once

#include <functional>
#include <utility>

#include "disk/zstd/zstd_index.h"

namespace crosvm {

/// Finds the frames of a zstd file that has no table.
class ZstdWalk {
 public:
  /// The time it takes is bounded by these; of blocks that make 128 KiB they are 4 TiB.
  static constexpr uint64_t kMostBlocks = uint64_t{1} << 25;

  explicit ZstdWalk(ImageReader& image) : image_(image) {}

  /// Errors: those of ZstdIndex::read.
  Result<ZstdIndex> run();

  /// Told now and then of the byte of the file that is reached; an error ends the walk.
  using Step = std::function<Result<void>(uint64_t at)>;
  /// The bytes that all frames make, however large and many they are: for who decodes them from
  /// start to end. Frames without a size are decoded to learn it. Errors: those of ZstdIndex::read
  /// but for what is too large or too much, and those of `step`.
  Result<uint64_t> measure_all(Step step);

 private:
  struct Header {
    bool has_size = false;
    bool has_checksum = false;
    uint64_t size = 0;
    uint64_t bytes = 0;  // that it takes
  };
  std::unexpected<Error> broken(const std::string& what) const;
  Result<Header> read_header() const;
  Result<void> walk();
  Result<void> walk_frame();
  Result<void> skip_frame();
  Result<uint64_t> walk_blocks(uint64_t at, uint64_t& makes_at_most);
  Result<uint64_t> measure(uint64_t file_bytes);

  ImageReader& image_;
  ZstdIndex index_;
  uint64_t next_ = 0;  // frame, in the file
  uint64_t blocks_ = 0;
  uint64_t measured_ = 0;  // bytes decoded to learn sizes
  uint64_t total_ = 0;     // bytes that frames make
  Step step_;              // where only the total matters
};

}  // namespace crosvm
