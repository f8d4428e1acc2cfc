#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

namespace crosvm {

/// Who is told that a flush has failed. Linux tells one fdatasync of an open file that bytes did
/// not reach the storage, and takes them for written from then on: when that was a flush of our
/// own, all would look well to the guest. So a flush fails, too, when another has failed while it
/// was under way, or before it and nobody has been told. Which of those under way together was told
/// shows when the last has ended: until then none of them has gone well. Thread-safe.
class FlushErrors {
 public:
  /// What those who wait for a flush are told: 0, or an errno.
  using Told = std::function<void(int error)>;
  struct Flush {
    uint64_t number = 0;
    uint64_t told = 0;  ///< failures, when it began
  };

  /// A flush begins, which is to `end` or to `end_untold`.
  Flush begin();
  /// Any flush has failed with this errno; before its end.
  void failed(int error);
  /// The flush has ended with `error`, or 0: what is to be told. Nothing while that is not known;
  /// `later` is called when it is, perhaps by the thread on which another flush ends.
  std::optional<int> end(const Flush& flush, int error, Told later);
  /// A flush has ended that nobody waits for.
  void end_untold(const Flush& flush);

 private:
  struct Held {
    Flush flush;
    uint64_t until = 0;  ///< flushes with lower numbers end first
    Told later;
  };
  int result_of(const Flush& flush, int error);

  std::mutex mutex_;  // guards all:
  uint64_t begun_ = 0;
  std::vector<uint64_t> running_;  // numbers, in order
  std::vector<Held> held_;
  uint64_t failures_ = 0;
  uint64_t told_ = 0;  // of those
  int last_ = 0;
};

}  // namespace crosvm
