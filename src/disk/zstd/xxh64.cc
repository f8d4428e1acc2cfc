#include "disk/zstd/xxh64.h"

#include <array>
#include <bit>
#include <cstring>

namespace crosvm {
namespace {

static_assert(std::endian::native == std::endian::little);  // lanes are read as they lie

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5;

template <class T>
T take(std::span<const std::byte>& bytes) {
  T lane;
  std::memcpy(&lane, bytes.data(), sizeof(lane));
  bytes = bytes.subspan(sizeof(lane));
  return lane;
}

uint64_t round(uint64_t accumulator, uint64_t lane) {
  return std::rotl(accumulator + lane * kPrime2, 31) * kPrime1;
}

uint64_t converge(const std::array<uint64_t, 4>& accumulators) {
  uint64_t one = std::rotl(accumulators[0], 1) + std::rotl(accumulators[1], 7) +
                 std::rotl(accumulators[2], 12) + std::rotl(accumulators[3], 18);
  for (const uint64_t accumulator : accumulators) {
    one = (one ^ round(0, accumulator)) * kPrime1 + kPrime4;
  }
  return one;
}

}  // namespace

uint64_t xxh64(std::span<const std::byte> bytes) {
  const uint64_t length = bytes.size();
  uint64_t hash = kPrime5;
  if (length >= 32) {
    std::array<uint64_t, 4> accumulators = {kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
    while (bytes.size() >= 32) {
      for (uint64_t& accumulator : accumulators) {
        accumulator = round(accumulator, take<uint64_t>(bytes));
      }
    }
    hash = converge(accumulators);
  }
  hash += length;
  while (bytes.size() >= 8) {
    hash = std::rotl(hash ^ round(0, take<uint64_t>(bytes)), 27) * kPrime1 + kPrime4;
  }
  if (bytes.size() >= 4) {
    hash = std::rotl(hash ^ take<uint32_t>(bytes) * kPrime1, 23) * kPrime2 + kPrime3;
  }
  while (!bytes.empty()) {
    hash = std::rotl(hash ^ take<uint8_t>(bytes) * kPrime5, 11) * kPrime1;
  }
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace crosvm
