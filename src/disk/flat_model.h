#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "disk/disk.h"

/// For tests that make any requests, in any order.
namespace crosvm::test {

/// What a disk must show: an array of bytes, but for those that a discard has left to it.
class FlatModel {
 public:
  /// Starts with these, of which all count.
  void start(std::vector<std::byte> bytes);
  const std::vector<std::byte>& bytes() const { return bytes_; }
  uint64_t size() const { return bytes_.size(); }
  /// What is new is zero.
  void resize(uint64_t size);

  /// Takes note of a request that has ended well; `data` is what it has written, or read. Of those
  /// that ask the disk: the first byte that is not what the disk tells, if there is one.
  std::optional<uint64_t> ended(const DiskRequest& request, std::span<const std::byte> data);
  /// The disk shows all this. As above; what discards have left counts from now on.
  std::optional<uint64_t> settle(std::vector<std::byte> shown);

 private:
  std::optional<uint64_t> compare(uint64_t offset, std::span<const std::byte> shown) const;
  std::optional<uint64_t> compare_extent(const DiskRequest& request) const;
  void set_known(const DiskRequest& request, bool known);

  std::vector<std::byte> bytes_;
  std::vector<bool> known_;  // false after a discard
};

}  // namespace crosvm::test
