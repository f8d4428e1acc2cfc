#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "devices/block/block_device.h"

namespace crosvm {

/// The size that a resize asks for, in bytes: decimal digits. Errors: invalid_argument for one that
/// a disk cannot have.
Result<uint64_t> read_size(std::string_view text);

/// Changes the size of a disk that its driver uses: lets all workers pause, tells their disks one
/// after the other, as each looks after the size for itself, and lets them go on. What happens on
/// their threads comes back to the device's loop.
class BlockDevice::Resize {
 public:
  /// `ended` is called once, on the device's loop, and may end this. When it fails nothing has
  /// changed, unless the device needs a reset.
  Resize(BlockDevice& device, uint64_t bytes, std::function<void(Result<void>)> ended);

  /// Some worker is there.
  void begin();
  /// The thread of this queue was made meanwhile, and has nothing to do yet.
  void joined(size_t index);

 private:
  enum class State : uint8_t { kAbsent, kPausing, kPaused, kResizing, kResized };

  void pause(size_t index);
  void paused(size_t index);
  void go_on();
  void resized(size_t index, Result<void> result);
  void end(Result<void> result);
  /// `work` on the thread of a worker.
  void on_worker(size_t index, std::function<void(BlockWorker&)> work);
  /// What a worker is to call, on any thread, for `work` on the device's loop.
  template <class... Args>
  auto on_loop(std::function<void(Args...)> work);

  BlockDevice& device_;
  const uint64_t bytes_;
  std::function<void(Result<void>)> ended_;
  std::vector<State> workers_;  // by queue; the only one of all queues: by 0
  bool changed_ = false;        // the first disk has the new size
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
};

}  // namespace crosvm
