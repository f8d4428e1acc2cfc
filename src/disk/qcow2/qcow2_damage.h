#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>

#include "base/log.h"
#include "base/log_limit.h"

namespace crosvm {

/// That an image turned out to be damaged while it is in use. From then on nothing is written to
/// it but the bit that says so.
class Qcow2Damage {
 public:
  explicit Qcow2Damage(std::string object) : object_(std::move(object)) {}

  /// EIO, for the request that came across it.
  int report(const std::string& what) {
    found_ = true;
    if (limit_.allows()) {
      log::error(
          "{}: {}; the qcow2 image is damaged and is only read from now on: shut the guest "
          "down and repair it with qemu-img check -r all",
          object_, what);
    }
    return EIO;
  }
  bool found() const { return found_; }
  const std::string& object() const { return object_; }

 private:
  const std::string object_;
  bool found_ = false;
  LogLimit limit_{"reports of a damaged qcow2 image", 1};
};

/// What must happen before work on the metadata can go on, from its beginning.
struct Qcow2Need {
  enum class Kind : uint8_t {
    kNothing,   ///< it is done
    kBlock,     ///< the refcount block at `value` is loaded
    kL2,        ///< the L2 table at `value` is loaded
    kFileSize,  ///< the file grows to at least `value` bytes
    kFailed,    ///< it cannot be: `error`
  };
  Kind kind = Kind::kNothing;
  uint64_t value = 0;
  int error = 0;

  bool is_nothing() const { return kind == Kind::kNothing; }
  static Qcow2Need failed(int error) { return {.kind = Kind::kFailed, .error = error}; }
};

}  // namespace crosvm
