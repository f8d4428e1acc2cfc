#include "disk/ordered_packer.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/result.h"

namespace crosvm {
namespace {

constexpr size_t kMostHelpers = 7;
constexpr size_t kMostBytes = size_t{64} << 20;  // of pieces at a time
constexpr size_t kJobsOfThread = 4;              // so that none waits for the writing of the file

size_t most_jobs(const OrderedPacker::Options& options) {
  const size_t by_bytes = kMostBytes / std::max<size_t>(1, options.piece_bytes);
  return std::clamp<size_t>(by_bytes, 1, kJobsOfThread * (options.helpers + 1));
}

}  // namespace

size_t OrderedPacker::usual_helpers() {
  const size_t processors = std::max(1U, std::thread::hardware_concurrency());
  return std::min(processors - 1, kMostHelpers);
}

OrderedPacker::OrderedPacker(const Options& options, const std::function<Pack()>& make)
    : most_(most_jobs(options)), own_(make()) {
  try {
    for (size_t i = 0; i < options.helpers && i + 1 < most_; ++i) {
      helpers_.emplace_back([this, pack = make()] { run(pack); });
    }
  } catch (const std::system_error&) {  // the one way that std::thread tells it
  }
}

OrderedPacker::~OrderedPacker() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  more_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

OrderedPacker::Job* OrderedPacker::next_waiting() {
  const auto found =
      std::ranges::find(jobs_, State::kWaiting, [](const auto& job) { return job->state; });
  return found == jobs_.end() ? nullptr : found->get();
}

void OrderedPacker::run(const Pack& pack) {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    Job* const job = next_waiting();
    if (!job) {
      more_.wait(lock);
      continue;
    }
    job->state = State::kRunning;
    lock.unlock();
    job->work.packed = pack(job->work.piece);
    lock.lock();
    job->state = State::kDone;
    done_.notify_one();
  }
}

void OrderedPacker::give(uint64_t tag, Bytes piece) {
  CHECK(!is_full());
  auto job = std::make_unique<Job>();
  job->work = {.tag = tag, .piece = std::move(piece), .packed = {}};
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  more_.notify_one();
}

void OrderedPacker::give_packed(uint64_t tag, Bytes packed) {
  CHECK(!is_full());
  auto job = std::make_unique<Job>();
  job->work = {.tag = tag, .piece = {}, .packed = std::move(packed)};
  job->state = State::kDone;
  std::lock_guard lock(mutex_);
  jobs_.push_back(std::move(job));
}

OrderedPacker::Packed OrderedPacker::take() {
  CHECK(!is_empty());
  std::unique_lock lock(mutex_);
  Job& oldest = *jobs_.front();
  if (oldest.state == State::kWaiting) {
    oldest.state = State::kRunning;
    lock.unlock();
    oldest.work.packed = own_(oldest.work.piece);
    lock.lock();
    oldest.state = State::kDone;
  }
  done_.wait(lock, [&oldest] { return oldest.state == State::kDone; });
  Packed packed = std::move(oldest.work);
  jobs_.pop_front();
  return packed;
}

}  // namespace crosvm
