#include "devices/block/block_resize.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/format.h"

namespace crosvm {

Result<uint64_t> read_size(std::string_view text) {
  uint64_t bytes = 0;
  const char* end = text.data() + text.size();
  auto [stopped, code] = std::from_chars(text.data(), end, bytes);
  if (code != std::errc() || stopped != end) {
    return fail(Error::invalid(format_text("'{}' is no size in bytes", text)));
  }
  if (bytes == 0) {
    return fail(Error::invalid(format_text(
        "a disk of 0 bytes has no sector; give at least {} bytes", BlockConfig::kSectorSize)));
  }
  if (bytes % BlockConfig::kSectorSize != 0) {
    return fail(
        Error::invalid(format_text("{} bytes are no whole number of sectors; give a multiple of {}",
                                   bytes, BlockConfig::kSectorSize)));
  }
  return bytes;
}

BlockDevice::Resize::Resize(BlockDevice& device, uint64_t bytes,
                            std::function<void(Result<void>)> ended)
    : device_(device), bytes_(bytes), ended_(std::move(ended)), workers_(BlockDevice::kQueues) {}

void BlockDevice::Resize::begin() {
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (device_.worker_ ? i == 0 : device_.threads_[i] != nullptr) pause(i);
  }
}

void BlockDevice::Resize::joined(size_t index) { pause(index); }

void BlockDevice::Resize::on_worker(size_t index, std::function<void(BlockWorker&)> work) {
  if (device_.worker_) return work(*device_.worker_);
  device_.threads_[index]->post(std::move(work));
}

template <class... Args>
auto BlockDevice::Resize::on_loop(std::function<void(Args...)> work) {
  return [&loop = device_.loop_, alive = std::weak_ptr(alive_), work](Args... args) {
    loop.post([alive, work, args...] {
      if (!alive.expired()) work(args...);
    });
  };
}

void BlockDevice::Resize::pause(size_t index) {
  workers_[index] = State::kPausing;
  auto told = on_loop(std::function<void()>([this, index] { paused(index); }));
  on_worker(index, [told](BlockWorker& worker) { worker.pause(told); });
}

void BlockDevice::Resize::paused(size_t index) {
  workers_[index] = State::kPaused;
  go_on();
}

/// One at a time: while a disk changes the file, the others must not look at it.
void BlockDevice::Resize::go_on() {
  for (const State state : workers_) {
    if (state == State::kPausing || state == State::kResizing) return;
  }
  const auto next = std::ranges::find(workers_, State::kPaused);
  if (next == workers_.end()) return end({});
  *next = State::kResizing;
  const auto index = static_cast<size_t>(next - workers_.begin());
  auto told = on_loop(std::function<void(Result<void>)>(
      [this, index](Result<void> result) { resized(index, std::move(result)); }));
  on_worker(index, [told, bytes = bytes_](BlockWorker& worker) { worker.resize(bytes, told); });
}

void BlockDevice::Resize::resized(size_t index, Result<void> result) {
  workers_[index] = State::kResized;
  if (result) {
    changed_ = true;
    return go_on();
  }
  if (changed_) {
    device_.events_.needs_reset(
        format_text("its size has changed, and not all of its workers could be told: {}",
                    result.error().what()));
  }
  end(std::move(result));
}

void BlockDevice::Resize::end(Result<void> result) {
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (workers_[i] == State::kAbsent) continue;
    on_worker(i, [](BlockWorker& worker) { worker.resume(); });
  }
  const auto ended = std::exchange(ended_, nullptr);
  ended(std::move(result));
}

}  // namespace crosvm
