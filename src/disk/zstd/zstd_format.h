#pragma once

#include <cstddef>
#include <cstdint>

/// Numbers of the zstd format (RFC 8878) and of its seekable form, which ends with a table of its
/// frames. All numbers in files are little endian.
namespace crosvm::zstd {

constexpr uint32_t kMagic = 0xFD2FB528;
constexpr uint32_t kSkippableMagic = 0x184D2A50;  ///< the last four bits are free
constexpr uint32_t kSkippableMask = 0xFFFFFFF0;
constexpr uint64_t kSkippableHeader = 8;    ///< magic, number of bytes that follow
constexpr uint32_t kMostBlock = 128 << 10;  ///< bytes that one block makes

constexpr uint32_t kSeekTableMagic = 0x184D2A5E;  ///< of the skippable frame
constexpr uint32_t kSeekableMagic = 0x8F92EAB1;   ///< the last bytes of the file
constexpr uint64_t kSeekFooter = 9;               ///< number of frames, descriptor, magic
constexpr uint8_t kSeekChecksums = 0x80;          ///< in the descriptor
constexpr uint8_t kSeekReserved = 0x7C;           ///< there, too: must be 0
constexpr uint64_t kSeekEntry = 8;                ///< compressed, decompressed size
constexpr uint64_t kSeekChecksum = 4;             ///< behind them: low half of XXH64

/// What we have in memory of one frame, decoded, at most.
constexpr uint64_t kMostFrame = 64 << 20;

}  // namespace crosvm::zstd
