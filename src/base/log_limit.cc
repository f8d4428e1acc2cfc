#include "base/log_limit.h"

#include "base/log.h"

namespace crosvm {

bool LogLimit::allows(Clock::time_point now) {
  size_t held_back = 0;
  {
    std::lock_guard lock(mutex_);
    if (now - window_ >= std::chrono::seconds(1)) {
      window_ = now;
      used_ = 0;
      held_back = std::exchange(held_back_, 0);
    }
    if (used_ == per_second_) {
      ++held_back_;
      return false;
    }
    ++used_;
  }
  if (held_back != 0) log::error("{} more {} were not logged", held_back, what_);
  return true;
}

}  // namespace crosvm
