#include "pci/intx_pin.h"

#include "base/log.h"

namespace crosvm {

Result<std::unique_ptr<IntxPin>> IntxPin::create(Vm& vm, InterruptRelay& relay, uint32_t gsi) {
  Fd trigger = TRY(make_eventfd());
  Fd resample = TRY(make_eventfd());
  return std::unique_ptr<IntxPin>(
      new IntxPin(vm, relay, gsi, std::move(trigger), std::move(resample)));
}

IntxPin::~IntxPin() {
  if (watch_ == 0) return;
  relay_.forget(watch_);
  Result<void> removed = vm_.unregister_irqfd(gsi_, trigger_);
  if (!removed) log::error("{}", removed.error().what());
}

Result<void> IntxPin::set(bool asserted) {
  std::lock_guard lock(mutex_);
  if (asserted == asserted_) return {};
  if (asserted && watch_ == 0) {
    // Not earlier: each irqfd with resample takes milliseconds, and a guest that uses MSI-X never
    // comes here.
    TRY(vm_.register_irqfd(gsi_, trigger_, &resample_));
    watch_ = relay_.watch(resample_, [this] { resampled(); });
  }
  asserted_ = asserted;
  if (asserted) signal_eventfd(trigger_);
  return {};
}

void IntxPin::resampled() {
  std::lock_guard lock(mutex_);
  if (drain_eventfd(resample_) != 0 && asserted_) signal_eventfd(trigger_);
}

}  // namespace crosvm
