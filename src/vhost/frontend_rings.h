#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "memory/guest_memory.h"
#include "virtio/ring_position.h"
#include "virtio/virtqueue.h"

namespace crosvm {

/// All that a ring of a vhost device needs in order to run.
struct FrontendRing {
  uint16_t size = 0;
  std::optional<VringAddresses> addresses;
  RingPosition base;
  Fd kick;
  Fd call;  ///< none: the driver polls
  bool enabled = false;
};

/// The way to one vhost device, by messages or by ioctls. FrontendRings calls it on the loop, and
/// with features and memory only while no ring runs. A failure means that the device needs a reset.
class VhostPort {
 public:
  virtual ~VhostPort() = default;
  virtual Result<void> set_features(uint64_t features) = 0;
  /// After `set_features`. `memory` outlives the port.
  virtual Result<void> set_memory(const GuestMemory& memory) = 0;
  /// Whether rings may start after `set_features` and `set_memory`; FrontendRings::proceed follows
  /// when not.
  virtual bool ready() const { return true; }
  /// `ring` has all but perhaps `call`.
  virtual Result<void> start_ring(uint16_t index, const FrontendRing& ring) = 0;
  /// Of a ring that runs.
  virtual Result<void> set_call(uint16_t index, const Fd& call) = 0;
  /// Of a ring that runs. `stopped` is called, perhaps at once, when nothing is in flight; never,
  /// if the device is gone.
  virtual void stop_ring(uint16_t index, std::function<void(RingPosition)> stopped) = 0;
  /// With no ring running. Features and memory are told anew before a ring starts.
  virtual void reset(std::function<void()> done) = 0;
  /// Where a ring goes on that ran or was being stopped when the device went away. Errors: that
  /// cannot be known.
  virtual Result<RingPosition> resume_position(uint16_t index, const FrontendRing& ring) = 0;
};

/// What a front end wants of a device's rings, and what it has told the device.
///
/// Whether a ring runs is a fact, computed anew after every change from features, memory, size,
/// addresses, kick and enable; a difference starts or stops it through the port. What changes under
/// a running ring stops it and starts it again where it was, but for the call descriptor, which is
/// swapped as it runs. The device may go away and come back: what was told is told again. All calls
/// are made on one loop.
class FrontendRings {
 public:
  struct Events {
    std::function<void(const std::string& why)> needs_reset;
  };
  /// `port` outlives this. `largest`: the largest size of each ring.
  FrontendRings(VhostPort& port, Events events, std::vector<uint16_t> largest, uint64_t offered);

  // The verbs of DeviceBackend. An index without a queue and a value that cannot be are told to
  // `refused` and ignored.
  void set_features(uint64_t features);
  void set_memory(const GuestMemory& memory);
  void set_vring_num(uint16_t index, uint16_t size);
  void set_vring_addr(uint16_t index, const VringAddresses& addresses);
  void set_vring_base(uint16_t index, RingPosition position);
  void set_vring_kick(uint16_t index, Fd kick);
  void set_vring_call(uint16_t index, Fd call);
  void set_vring_enable(uint16_t index, bool enable);
  void get_vring_base(uint16_t index, std::function<void(RingPosition)> done);
  void reset(std::function<void()> done);

  /// The port is ready.
  void proceed() { update(); }
  /// No ring starts until there was a reset. Tells `needs_reset` once.
  void break_down(const std::string& why);
  /// The device is gone: no ring runs. Who waits for a stop or a reset waits on.
  void lost();
  /// It is gone, perhaps for long, and left nothing in flight: who waits for a stop or a reset need
  /// not, now or until it is back. After `lost`.
  void go_on_without();
  /// It is back, and knows nothing.
  void restored();
  /// It will not come back: who waits need not, now or later, and each driver is told.
  void abandon();

  /// Features that the driver accepted, if it did.
  std::optional<uint64_t> features() const { return wanted_features_; }
  /// What the device may be offered from now on.
  void set_offered(uint64_t offered) { offered_ = offered; }
  bool packed() const;
  /// What the device was told, if it was.
  std::optional<uint64_t> told_features() const { return features_; }
  /// Calls `each(index, ring)` for the rings that run.
  template <class Each>
  void for_each_running(Each each) const {
    for (uint16_t index = 0; index < rings_.size(); ++index) {
      if (rings_[index].phase == Phase::kRunning) each(index, rings_[index].settings);
    }
  }
  /// No ring runs.
  bool all_stopped() const;
  std::function<void(const std::string& what)> refused;

 private:
  enum class Phase { kStopped, kRunning, kStopping };
  enum class Link { kUp, kDown, kGone };
  struct Ring {
    FrontendRing settings;
    Phase phase = Phase::kStopped;
    bool changed = false;      // since it was started
    bool base_is_new = false;  // set since it was started: counts more than where it stops
    std::vector<std::function<void(RingPosition)>> stop_waiters;
  };

  Ring* find(uint16_t index, const char* verb);
  void refuse(std::string what);
  void changed(Ring& ring);
  void forget_settings();
  void update();
  void step();
  void stop_what_must();
  void tell_all();
  void start_what_can();
  void give_up_waiting();
  bool must_all_stop() const;
  void start(uint16_t index);
  void stop(uint16_t index);
  void stopped(uint16_t index, RingPosition position);
  void begin_reset();
  void finish_reset();

  VhostPort& port_;
  Events events_;
  std::vector<uint16_t> largest_;
  uint64_t offered_;
  uint64_t first_offered_;  // what the driver was shown
  std::vector<Ring> rings_;

  // What is wanted and what the device was told: it learns of a change with all rings stopped.
  std::optional<uint64_t> wanted_features_;
  std::optional<uint64_t> features_;
  const GuestMemory* wanted_memory_ = nullptr;
  const GuestMemory* memory_ = nullptr;
  std::vector<std::function<void()>> reset_done_;  // not empty: a reset is wanted
  bool resetting_ = false;                         // the device is at it

  Link link_ = Link::kUp;
  bool waits_ = true;   // when the link is down
  uint64_t epoch_ = 0;  // answers from before the device went away do not count
  bool broken_ = false;
  bool updating_ = false;
  bool update_again_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace crosvm
