#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "base/fd.h"
#include "base/result.h"
#include "hypervisor/hypervisor.h"
#include "pci/interrupt_relay.h"

namespace crosvm {

/// The INTx pin of one function, on an interrupt line that several functions share: level-triggered
/// by an irqfd with resample. The guest's EOI lowers the line, and the relay raises it again while
/// the pin is asserted. Thread-safe.
class IntxPin {
 public:
  /// `vm` and `relay` outlive this. Errors: the errno of making an eventfd.
  static Result<std::unique_ptr<IntxPin>> create(Vm& vm, InterruptRelay& relay, uint32_t gsi);
  /// Not on the relay's thread.
  ~IntxPin();
  IntxPin(const IntxPin&) = delete;
  IntxPin& operator=(const IntxPin&) = delete;

  /// Asserts or deasserts the pin. The line of one that is deasserted falls with the next EOI: the
  /// hypervisor has no other way. Errors: the errno of adding the irqfd, which is tried again at
  /// the next change.
  Result<void> set(bool asserted);

 private:
  IntxPin(Vm& vm, InterruptRelay& relay, uint32_t gsi, Fd trigger, Fd resample)
      : vm_(vm),
        relay_(relay),
        gsi_(gsi),
        trigger_(std::move(trigger)),
        resample_(std::move(resample)) {}
  void resampled();

  Vm& vm_;
  InterruptRelay& relay_;
  const uint32_t gsi_;
  const Fd trigger_;
  const Fd resample_;
  std::mutex mutex_;
  bool asserted_ = false;
  InterruptRelay::WatchId watch_ = 0;  // of resample_, from the first assertion on
};

}  // namespace crosvm
