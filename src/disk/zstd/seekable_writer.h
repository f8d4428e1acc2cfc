#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "disk/ordered_packer.h"

namespace crosvm {

/// Writes a zstd file that can be read at random: frames of one size, each with its checksum, and a
/// table of them. `zstd -d` reads it as any other. In blocking calls, which other threads help
/// with.
class SeekableZstdWriter {
 public:
  /// The largest that all readers of such files take.
  static constexpr size_t kFrameBytes = 128 << 10;
  static constexpr int kLevel = 3;

  struct Options {
    size_t frame_bytes = kFrameBytes;  ///< that a frame makes: 4 KiB to 64 MiB
    int level = kLevel;                ///< of zstd, 1 to 22
    /// Threads beside the calling one; the file is the same whatever their number.
    size_t helpers = OrderedPacker::usual_helpers();
  };
  /// What suits so many bytes: larger frames where there would be too many.
  static size_t frame_bytes_for(uint64_t bytes);

  /// Writes to `file` from its position on; `object` names it in errors. Errors: invalid_argument
  /// for options out of range, not_enough_memory.
  static Result<SeekableZstdWriter> create(const Fd& file, std::string object,
                                           const Options& options);
  SeekableZstdWriter(SeekableZstdWriter&&) noexcept;
  ~SeekableZstdWriter();

  /// Errors: those of write; file_too_large for more frames than a reader of ours takes.
  Result<void> append(std::span<const std::byte> bytes);
  /// The same with so many zeroes, which cost next to nothing.
  Result<void> append_zeroes(uint64_t bytes);
  /// Writes what is left, and the table. The last call.
  Result<void> finish();

 private:
  struct Entry {
    uint32_t file_bytes;
    uint32_t length;
    uint32_t checksum;
  };
  SeekableZstdWriter(const Fd& file, std::string object, const Options& options);
  Result<void> end_frame();
  Result<void> make_room();
  Result<void> put_oldest();
  Result<void> put_frame(std::span<const std::byte> frame, uint32_t length);
  Result<void> put(std::span<const std::byte> bytes);
  Result<void> put_number(uint64_t value, size_t bytes);
  Result<void> flush();

  const Fd* file_;
  std::string object_;
  Options options_;
  OrderedPacker::Pack pack_;  // for the calling thread
  std::unique_ptr<OrderedPacker> packer_;
  std::vector<std::byte> pending_;     // less than a frame
  std::vector<std::byte> zero_frame_;  // a whole one of zeroes, once there was one
  std::vector<std::byte> out_;         // to be written
  std::vector<Entry> entries_;
};

}  // namespace crosvm
