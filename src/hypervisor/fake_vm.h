#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "hypervisor/hypervisor.h"

namespace crosvm::test {

/// A Vm without vCPUs or memory that keeps what it is told of interrupts and ioeventfds. Every
/// call can be made to fail. Thread-safe.
///
/// Irqfds take no signals by themselves: `deliver` is the moment at which the kernel looks.
class FakeVm : public Vm {
 public:
  struct Irqfd {
    uint32_t gsi = 0;
    int trigger = -1;
    int resample = -1;
  };
  struct Ioevent {
    IoEvent what;
    int event = -1;
  };

  Result<void> map_ram(const GuestMemory&) override { return {}; }
  Result<Memslot> map(GuestAddress, void*, uint64_t, bool) override { return Memslot{0}; }
  Result<void> unmap(Memslot) override { return {}; }

  Result<void> register_irqfd(uint32_t gsi, const Fd& trigger, const Fd* resample) override {
    std::lock_guard lock(mutex_);
    if (failing_) return fail(Error::from_errno("fake", "register_irqfd", failing_));
    for (const Irqfd& irqfd : irqfds_) {
      if (irqfd.trigger == trigger.get()) return fail(Error::from_errno("fake", "irqfd", EBUSY));
    }
    irqfds_.push_back({gsi, trigger.get(), resample == nullptr ? -1 : resample->get()});
    return {};
  }
  Result<void> unregister_irqfd(uint32_t gsi, const Fd& trigger) override {
    std::lock_guard lock(mutex_);
    auto gone = std::erase_if(irqfds_, [&](const Irqfd& irqfd) {
      return irqfd.gsi == gsi && irqfd.trigger == trigger.get();
    });
    if (gone == 1) return {};
    return fail(Error::from_errno("fake", "unregister_irqfd", ENOENT));
  }
  Result<void> set_irq_routes(std::span<const IrqRoute> routes) override {
    std::lock_guard lock(mutex_);
    if (failing_) return fail(Error::from_errno("fake", "set_irq_routes", failing_));
    ++pushes_;
    routes_.assign(routes.begin(), routes.end());
    return {};
  }
  Result<void> set_irq_line(uint32_t, bool) override { return {}; }
  Result<void> signal_msi(const MsiMessage& message) override {
    std::lock_guard lock(mutex_);
    sent_.push_back(message);
    return {};
  }
  Result<void> register_ioevent(const IoEvent& what, const Fd& event) override {
    std::lock_guard lock(mutex_);
    if (failing_) return fail(Error::from_errno("fake", "register_ioevent", failing_));
    ioevents_.push_back({what, event.get()});
    return {};
  }
  Result<void> unregister_ioevent(const IoEvent& what, const Fd& event) override {
    std::lock_guard lock(mutex_);
    auto gone = std::erase_if(ioevents_, [&](const Ioevent& ioevent) {
      return ioevent.what.address == what.address && ioevent.what.space == what.space &&
             ioevent.event == event.get();
    });
    if (gone == 1) return {};
    return fail(Error::from_errno("fake", "unregister_ioevent", ENOENT));
  }
  Result<Fd> duplicate_descriptor() const override { return make_eventfd(); }
  std::string_view backend_name() const override { return "Fake"; }

  /// From now on calls that add something fail with `error_number`; 0: they work.
  void fail_with(int error_number) {
    std::lock_guard lock(mutex_);
    failing_ = error_number;
  }

  std::vector<IrqRoute> routes() const { return copy(routes_); }
  std::vector<Irqfd> irqfds() const { return copy(irqfds_); }
  std::vector<Ioevent> ioevents() const { return copy(ioevents_); }
  /// How often the routing table was set.
  int pushes() const {
    std::lock_guard lock(mutex_);
    return pushes_;
  }
  /// The messages that reached the guest since the last call, by signal_msi or through an irqfd
  /// that was signalled.
  std::vector<MsiMessage> take_sent() {
    deliver();
    std::lock_guard lock(mutex_);
    return std::exchange(sent_, {});
  }
  /// How often a level line was raised since the last call.
  int take_raised(uint32_t gsi) {
    deliver();
    std::lock_guard lock(mutex_);
    return std::exchange(raised_[gsi], 0);
  }
  /// The guest's EOI for a level line: the resample descriptors of all irqfds on it are signalled.
  void end_of_interrupt(uint32_t gsi) {
    std::lock_guard lock(mutex_);
    for (const Irqfd& irqfd : irqfds_) {
      if (irqfd.gsi != gsi || irqfd.resample < 0) continue;
      const uint64_t one = 1;
      CHECK(::write(irqfd.resample, &one, sizeof(one)) == sizeof(one));
    }
  }

 private:
  template <class T>
  T copy(const T& value) const {
    std::lock_guard lock(mutex_);
    return value;
  }
  void deliver() {
    std::lock_guard lock(mutex_);
    for (const Irqfd& irqfd : irqfds_) {
      uint64_t count = 0;
      if (::read(irqfd.trigger, &count, sizeof(count)) != sizeof(count)) continue;
      for (const IrqRoute& route : routes_) {
        const auto* message = std::get_if<MsiMessage>(&route.target);
        if (route.gsi == irqfd.gsi && message != nullptr) sent_.push_back(*message);
      }
      if (irqfd.resample >= 0) ++raised_[irqfd.gsi];
    }
  }

  mutable std::mutex mutex_;
  int failing_ = 0;
  int pushes_ = 0;
  std::vector<IrqRoute> routes_;
  std::vector<Irqfd> irqfds_;
  std::vector<Ioevent> ioevents_;
  std::vector<MsiMessage> sent_;
  std::map<uint32_t, int> raised_;
};

}  // namespace crosvm::test
