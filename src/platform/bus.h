#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace crosvm {

/// Something on a bus. The bus serialises accesses to one device with a lock per device, so a
/// device needs locks only for its own other threads.
class BusDevice {
 public:
  virtual ~BusDevice() = default;
  /// Names the device in logs: "serial", "cmos".
  virtual std::string_view label() const = 0;
  /// `offset` is in bytes from the start of the device's range; `data` is zero-filled.
  virtual void read(uint64_t offset, std::span<std::byte> data) = 0;
  virtual void write(uint64_t offset, std::span<const std::byte> data) = 0;
};

/// Routes accesses to devices by address (devices.md 1): a read that no device claims leaves
/// zeroes, a write is dropped. Only the first byte decides; an access is not split. Thread-safe.
class Bus {
 public:
  explicit Bus(std::string name) : name_(std::move(name)) {}

  /// Gives [base, base+length) to `device`. Errors: file_exists naming both devices when it
  /// overlaps, invalid_argument when empty or wrapping.
  Result<void> insert(uint64_t base, uint64_t length, std::shared_ptr<BusDevice> device);
  /// Takes back the range that starts at `base`; returns false when none does.
  bool remove(uint64_t base);
  /// `data` must be zero-filled by the caller (the hypervisor does).
  void read(uint64_t address, std::span<std::byte> data);
  void write(uint64_t address, std::span<const std::byte> data);

 private:
  struct Entry {
    uint64_t length = 0;
    std::shared_ptr<BusDevice> device;
    std::shared_ptr<std::mutex> lock;  // one per device, also where it has several ranges
  };
  const Entry* find(uint64_t address, uint64_t* base) const;

  std::string name_;
  mutable std::shared_mutex mutex_;
  std::map<uint64_t, Entry> entries_;
};

}  // namespace crosvm
