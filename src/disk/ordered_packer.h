#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace crosvm {

/// Compresses pieces on several threads; they come back in the order in which they were given, so
/// that what is made of them does not depend on the threads. The calling thread helps while it
/// waits: without any other the work is done just as well.
class OrderedPacker {
 public:
  using Bytes = std::vector<std::byte>;
  /// Makes something of a piece. Runs on one thread at a time.
  using Pack = std::function<Bytes(std::span<const std::byte> piece)>;
  struct Packed {
    uint64_t tag = 0;  ///< that the piece was given with
    Bytes piece;
    Bytes packed;
  };
  struct Options {
    size_t helpers = usual_helpers();  ///< threads beside the calling one
    size_t piece_bytes = 0;            ///< that a piece has at most: bounds how many there are
  };
  /// As many as this process has processors, less one, and not more than seven.
  static size_t usual_helpers();

  /// Calls `make` once for each thread. Where a thread cannot be had it does with fewer.
  OrderedPacker(const Options& options, const std::function<Pack()>& make);
  ~OrderedPacker();
  OrderedPacker(const OrderedPacker&) = delete;
  OrderedPacker& operator=(const OrderedPacker&) = delete;

  /// `take` must come before the next `give`.
  bool is_full() const { return jobs_.size() >= most_; }
  bool is_empty() const { return jobs_.empty(); }
  void give(uint64_t tag, Bytes piece);
  /// The same of a piece of which it is known what is made of it; `piece` comes back empty.
  void give_packed(uint64_t tag, Bytes packed);
  /// The oldest one, when it is done; there is one.
  Packed take();

 private:
  enum class State : uint8_t { kWaiting, kRunning, kDone };
  struct Job {
    Packed work;
    State state = State::kWaiting;
  };
  void run(const Pack& pack);
  Job* next_waiting();

  const size_t most_;
  const Pack own_;
  std::deque<std::unique_ptr<Job>> jobs_;  // changed by the calling thread alone, under the mutex
  std::mutex mutex_;                       // guards the jobs' states, and `ending_`
  std::condition_variable more_;
  std::condition_variable done_;
  bool ending_ = false;
  std::vector<std::thread> helpers_;
};

}  // namespace crosvm
