#pragma once

#include <atomic>
#include <cstdint>

namespace crosvm {

/// Who is told that a flush has failed. Linux tells one fdatasync of an open file that bytes did
/// not reach the storage, and takes them for written from then on: when that was a flush of our
/// own, all would look well to the guest. So a flush fails, too, when another has failed while it
/// was under way, or before it and nobody has been told. Thread-safe.
class FlushErrors {
 public:
  /// A flush begins that somebody waits for. To be given to `end`.
  uint64_t begin() const { return told_; }
  /// Any flush has failed with this errno.
  void failed(int error) {
    last_ = error;
    ++failures_;
  }
  /// The flush has ended with `error`, or 0: what those who wait for it are told.
  int end(uint64_t begun, int error) {
    const uint64_t failures = failures_;
    if (failures <= begun) return error;
    told_ = failures;
    return error != 0 ? error : last_.load();
  }

 private:
  std::atomic<uint64_t> failures_ = 0;
  std::atomic<uint64_t> told_ = 0;  // of those
  std::atomic<int> last_ = 0;
};

}  // namespace crosvm
