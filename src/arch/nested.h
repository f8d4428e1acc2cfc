#pragma once

namespace crosvm {

/// Whether the guest may run guests of its own.
enum class Nested {
  kOff,
  kAuto,  ///< if the host can
  kOn,    ///< an error if the host cannot
};

}  // namespace crosvm
