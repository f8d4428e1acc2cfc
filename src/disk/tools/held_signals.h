#pragma once

#include <csignal>

#include "base/result.h"

namespace crosvm {

/// Keeps SIGINT, SIGTERM and SIGHUP from ending a tool amid its work: it asks now and then, gives
/// up and tidies. What has come takes effect when this is gone. Made before any thread.
class HeldSignals {
 public:
  HeldSignals();
  ~HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

  /// Errors: interrupted, once one of them has come.
  Result<void> check() const;

 private:
  sigset_t held_;
  sigset_t before_;
};

}  // namespace crosvm
