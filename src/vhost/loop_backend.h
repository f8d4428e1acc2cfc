#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/log_limit.h"
#include "vhost/frontend_rings.h"
#include "virtio/config_writes.h"
#include "virtio/device_backend.h"

namespace crosvm {

/// What a LoopBackend and its event loop have in common: the front end's half of one device. It
/// lives until the loop has let go of it; all but `attach` and the functions below it is called on
/// the loop, under `mutex()`.
class LoopDevice : public VhostPort {
 public:
  explicit LoopDevice(EventLoop& loop) : loop_(loop) {}

  // With the mutex held.
  FrontendRings& rings() { return *rings_; }
  /// Nobody will hear of the device any more.
  virtual void closing() {}
  /// Before a verb other than `write_config`, and after any.
  virtual void before_verb() {}
  virtual void after_verb() {}
  virtual void write_config(size_t offset, std::vector<std::byte> data) = 0;

  /// Held while anything happens for the device on the loop.
  std::mutex& mutex() { return mutex_; }
  EventLoop& loop() { return loop_; }
  const DeviceInfo& info() const { return info_; }
  /// Nobody hears of the device any more; the loop does no more for it.
  void close();
  void set_listener(BackendListener* listener);
  bool closed() const { return closed_; }  // with the mutex held

 protected:
  /// Once the device is known.
  void make_rings(DeviceInfo info);
  // With the mutex held:
  void tell_config(std::vector<std::byte> config);
  /// The configuration as of the last change.
  const std::vector<std::byte>& config() const {
    return last_config_ ? *last_config_ : info_.config;
  }
  void complain(const std::string& what);

 private:
  EventLoop& loop_;
  DeviceInfo info_;
  LogLimit complaints_{"complaints about a vhost device"};
  std::mutex mutex_;
  std::optional<FrontendRings> rings_;
  // Guarded by mutex_, also while the listener is called:
  BackendListener* listener_ = nullptr;
  std::optional<std::vector<std::byte>> last_config_;  // none: as in info_
  bool closed_ = false;
};

/// A DeviceBackend whose verbs run on an event loop that others use too: they are posted, in order,
/// and whatever calls them goes on. `done` of a verb does not run any more once the backend is
/// gone; nothing that runs on the loop may end the backend while it holds its device.
class LoopBackend : public DeviceBackend {
 public:
  /// The loop may still have to do with the device afterwards, but touches neither the guest's
  /// memory nor a callback.
  ~LoopBackend() override;

  const DeviceInfo& info() const override { return device_->info(); }
  void set_listener(BackendListener* listener) override { device_->set_listener(listener); }
  void set_features(uint64_t features) override;
  void set_memory(const GuestMemory& memory) override;
  void set_vring_num(uint16_t index, uint16_t size) override;
  void set_vring_addr(uint16_t index, const VringAddresses& addresses) override;
  void set_vring_base(uint16_t index, RingPosition position) override;
  void set_vring_kick(uint16_t index, Fd kick) override;
  void set_vring_call(uint16_t index, Fd call) override;
  void set_vring_enable(uint16_t index, bool enable) override;
  void get_vring_base(uint16_t index, std::function<void(RingPosition)> done) override;
  void reset(std::function<void()> done) override;
  void set_config(size_t offset, std::vector<std::byte> data) override;

 protected:
  explicit LoopBackend(std::shared_ptr<LoopDevice> device) : device_(std::move(device)) {}
  LoopDevice& device() { return *device_; }
  /// `verb()` on the loop, with the mutex held, unless the backend has gone by then.
  void post(std::function<void()> verb);

 private:
  void post_rings(std::function<void(FrontendRings&)> verb);
  static void write_batch(LoopDevice& device, const ConfigWrites& batch);

  std::shared_ptr<LoopDevice> device_;
  struct Batch {
    std::mutex mutex;
    std::shared_ptr<ConfigWrites> open;  // guarded by mutex: posted, and not yet run
  };
  std::shared_ptr<Batch> batch_ = std::make_shared<Batch>();
};

}  // namespace crosvm
