#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// A block device of the host that takes its time to write: dm-delay on a loop device on a file.
/// Gone when this is.
class DelayedDevice {
 public:
  /// `file` has `bytes`. Errors: the errno of what this machine does not have or let us do.
  static Result<DelayedDevice> create(const Fd& file, uint64_t bytes,
                                      std::chrono::milliseconds write_delay);
  DelayedDevice(DelayedDevice&& other) noexcept;
  DelayedDevice& operator=(DelayedDevice&&) = delete;
  ~DelayedDevice();

  const std::string& path() const { return path_; }

 private:
  DelayedDevice() = default;
  Result<uint32_t> attach_loop(const Fd& file);

  Fd control_;
  Fd loop_;
  std::string name_;  // of the mapping; empty: there is none
  std::string path_;
};

}  // namespace crosvm
