#include "disk/flush_errors.h"

#include <utility>

namespace crosvm {

FlushErrors::Flush FlushErrors::begin() {
  const std::lock_guard lock(mutex_);
  running_.push_back(begun_);
  return {.number = begun_++, .told = told_};
}

void FlushErrors::failed(int error) {
  const std::lock_guard lock(mutex_);
  last_ = error;
  ++failures_;
}

int FlushErrors::result_of(const Flush& flush, int error) {
  if (failures_ <= flush.told) return error;
  told_ = failures_;
  return error != 0 ? error : last_;
}

std::optional<int> FlushErrors::end(const Flush& flush, int error, Told later) {
  std::optional<int> result;
  {
    const std::lock_guard lock(mutex_);
    const bool alone = running_.size() == 1;
    if (error == 0 && !alone) {
      held_.push_back({.flush = flush, .until = begun_, .later = std::move(later)});
    } else {
      result = result_of(flush, error);
    }
  }
  end_untold(flush);
  return result;
}

void FlushErrors::end_untold(const Flush& flush) {
  std::vector<std::pair<Told, int>> telling;
  {
    const std::lock_guard lock(mutex_);
    std::erase(running_, flush.number);
    const uint64_t first = running_.empty() ? begun_ : running_.front();
    std::erase_if(held_, [&](Held& held) {
      if (held.until > first) return false;
      telling.emplace_back(std::move(held.later), result_of(held.flush, 0));
      return true;
    });
  }
  for (const auto& [later, error] : telling) later(error);
}

}  // namespace crosvm
