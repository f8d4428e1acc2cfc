#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

// Shared memory regions of a device (virtio 1.3 §2.10): windows that the driver sees, into which
// the device has pieces of files mapped. All numbers are bytes and multiples of the page size.

/// A part of a region.
struct SharedPlace {
  uint8_t id = 0;  ///< of the region
  uint64_t offset = 0;
  uint64_t length = 0;

  friend bool operator==(const SharedPlace&, const SharedPlace&) = default;
};

/// What is to be seen there.
struct SharedFile {
  Fd file;
  uint64_t offset = 0;
  bool writable = false;
};

/// Who shows shared memory to the driver.
class SharedMemoryListener {
 public:
  virtual ~SharedMemoryListener() = default;
  /// `place` is free and lies in its region. The file is any that the device chose: how long it
  /// is, and whether it can be mapped at all, is not known. Errors: the device is told that it
  /// failed.
  virtual Result<void> map(const SharedPlace& place, SharedFile file) = 0;
  /// A place that was mapped.
  virtual void unmap(const SharedPlace& place) = 0;
};

/// The regions of one device and what is mapped there. The device is not trusted.
class SharedMemoryTable {
 public:
  /// More are an error: each takes something of the host's.
  static constexpr size_t kMostMappings = 4096;

  /// `sizes` by the regions' IDs, 0 for one that there is not. `listener` outlives the table.
  SharedMemoryTable(std::vector<uint64_t> sizes, SharedMemoryListener& listener)
      : sizes_(std::move(sizes)), listener_(listener), mapped_(sizes_.size()) {}
  /// Unmaps what is mapped.
  ~SharedMemoryTable() { clear(); }
  SharedMemoryTable(const SharedMemoryTable&) = delete;
  SharedMemoryTable& operator=(const SharedMemoryTable&) = delete;

  /// Errors: invalid_argument when the place is not in a region, no multiple of a page, or when the
  /// file's offset cannot be; file_exists when something is mapped in any part of it;
  /// no_buffer_space for too many; else those of the listener.
  Result<void> map(const SharedPlace& place, SharedFile file);
  /// Errors: invalid_argument when nothing is mapped at just this place.
  Result<void> unmap(const SharedPlace& place);
  /// Unmaps all.
  void clear();
  size_t mappings() const { return count_; }

 private:
  Result<void> check(const SharedPlace& place) const;

  std::vector<uint64_t> sizes_;
  SharedMemoryListener& listener_;
  std::vector<std::map<uint64_t, uint64_t>> mapped_;  // by ID: lengths by offset
  size_t count_ = 0;
};

}  // namespace crosvm
