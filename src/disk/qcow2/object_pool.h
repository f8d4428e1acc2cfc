#pragma once

#include <memory>
#include <vector>

namespace crosvm {

/// Objects that are used again, so that a steady flow of requests allocates nothing.
template <class T>
class ObjectPool {
 public:
  template <class... Args>
  T& take(Args&&... args) {
    if (free_.empty()) {
      all_.push_back(std::make_unique<T>(args...));
      free_.push_back(all_.back().get());
    }
    T& taken = *free_.back();
    free_.pop_back();
    return taken;
  }
  void give_back(T& object) { free_.push_back(&object); }

 private:
  std::vector<std::unique_ptr<T>> all_;
  std::vector<T*> free_;
};

}  // namespace crosvm
