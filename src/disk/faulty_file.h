#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "disk/async_file.h"

namespace crosvm {

/// One thing that goes wrong. Of the limits that are given all must hold; each operation suffers
/// the first fault that fits.
struct Fault {
  std::optional<FileOperation::Kind> kind = std::nullopt;
  std::optional<uint64_t> number = std::nullopt;  ///< of the operation on the file, from 0
  uint64_t offset = 0;  ///< the operation reaches into [offset, offset + length)
  uint64_t length = UINT64_MAX;
  int error = 0;  ///< the errno that it ends with, or 0: it is done
  std::optional<uint64_t> at_most =
      std::nullopt;                    ///< bytes of a transfer that are done: a short one
  std::chrono::milliseconds delay{0};  ///< before it is done or fails
};

/// What goes wrong, for a test and the FaultyFiles of its device on another thread.
class FaultPlan {
 public:
  void add(const Fault& fault);
  void clear();
  /// Counts the operation and finds what happens to it.
  std::optional<Fault> next(const FileOperation& operation);
  uint64_t operations() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Fault> faults_;
  uint64_t operations_ = 0;
};

/// A file that fails as a plan says, for tests. Loop, plan and file outlive it.
std::unique_ptr<AsyncFile> make_faulty_file(EventLoop& loop, FaultPlan& plan,
                                            std::unique_ptr<AsyncFile> file);

}  // namespace crosvm
