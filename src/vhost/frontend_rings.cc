#include "vhost/frontend_rings.h"

#include <linux/virtio_config.h>

#include <algorithm>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

bool complete(const FrontendRing& ring) {
  return ring.size != 0 && ring.addresses && ring.kick && ring.enabled;
}

}  // namespace

FrontendRings::FrontendRings(VhostPort& port, Events events, std::vector<uint16_t> largest,
                             uint64_t offered)
    : port_(port),
      events_(std::move(events)),
      largest_(std::move(largest)),
      offered_(offered),
      first_offered_(offered),
      rings_(largest_.size()) {}

bool FrontendRings::packed() const {
  return wanted_features_ && (*wanted_features_ & uint64_t{1} << VIRTIO_F_RING_PACKED) != 0;
}

void FrontendRings::refuse(std::string what) {
  if (refused) refused(what);
}

FrontendRings::Ring* FrontendRings::find(uint16_t index, const char* verb) {
  if (index < rings_.size()) return &rings_[index];
  refuse(format_text("{} of queue {}: there are {} queues", verb, index, rings_.size()));
  return nullptr;
}

void FrontendRings::changed(Ring& ring) {
  ring.changed = true;
  update();
}

// ---- the verbs

void FrontendRings::set_features(uint64_t features) {
  const uint64_t unknown = features & ~offered_;
  if (unknown != 0) refuse(format_text("features {:#x} were not offered", unknown));
  wanted_features_ = features & offered_;
  if (const uint64_t lacking = features & first_offered_ & ~offered_; lacking != 0) {
    return break_down(format_text("the device that took over lacks the features {:#x}", lacking));
  }
  if (link_ == Link::kGone) {
    broken_ = false;  // told to each driver that comes
    return break_down("the device is gone");
  }
  update();
}

void FrontendRings::set_memory(const GuestMemory& memory) {
  wanted_memory_ = &memory;
  update();
}

void FrontendRings::set_vring_num(uint16_t index, uint16_t size) {
  Ring* ring = find(index, "size");
  if (!ring || ring->settings.size == size) return;
  if (size == 0 || size > largest_[index]) {
    return refuse(format_text("size {} of queue {}: 1 to {} can be", size, index, largest_[index]));
  }
  ring->settings.size = size;
  changed(*ring);
}

void FrontendRings::set_vring_addr(uint16_t index, const VringAddresses& addresses) {
  Ring* ring = find(index, "addresses");
  if (!ring || ring->settings.addresses == addresses) return;
  ring->settings.addresses = addresses;
  changed(*ring);
}

void FrontendRings::set_vring_base(uint16_t index, RingPosition position) {
  Ring* ring = find(index, "position");
  if (!ring) return;
  ring->settings.base = position;
  ring->base_is_new = true;
  changed(*ring);
}

void FrontendRings::set_vring_kick(uint16_t index, Fd kick) {
  Ring* ring = find(index, "kick");
  if (!ring) return;
  ring->settings.kick = std::move(kick);
  changed(*ring);
}

void FrontendRings::set_vring_call(uint16_t index, Fd call) {
  Ring* ring = find(index, "call");
  if (!ring) return;
  ring->settings.call = std::move(call);
  if (ring->phase != Phase::kRunning) return;
  if (auto told = port_.set_call(index, ring->settings.call); !told) {
    break_down(told.error().what());
  }
}

void FrontendRings::set_vring_enable(uint16_t index, bool enable) {
  Ring* ring = find(index, "enabling");
  if (!ring || ring->settings.enabled == enable) return;
  ring->settings.enabled = enable;
  changed(*ring);
}

void FrontendRings::get_vring_base(uint16_t index, std::function<void(RingPosition)> done) {
  Ring* ring = find(index, "stopping");
  if (!ring) return done({});
  ring->settings.kick = {};
  ring->settings.call = {};
  // A device that went away may still have something in flight, until it is back.
  const bool may_run = link_ == Link::kDown && waits_;
  if (ring->phase == Phase::kStopped && !may_run) return done(ring->settings.base);
  ring->stop_waiters.push_back(std::move(done));
  update();
}

void FrontendRings::reset(std::function<void()> done) {
  forget_settings();
  reset_done_.push_back(std::move(done));
  if (link_ == Link::kGone) return give_up_waiting();
  if (link_ == Link::kDown && !waits_) {
    broken_ = false;
    return give_up_waiting();
  }
  update();
}

void FrontendRings::forget_settings() {
  wanted_features_.reset();
  for (Ring& ring : rings_) {
    ring.settings = {};
    ring.base_is_new = true;
  }
}

// ---- what follows from them

void FrontendRings::update() {
  update_again_ = true;
  if (updating_) return;  // a callback changed something: the loop below sees it
  updating_ = true;
  while (std::exchange(update_again_, false)) step();
  updating_ = false;
}

bool FrontendRings::must_all_stop() const {
  return !reset_done_.empty() || wanted_features_ != features_ || wanted_memory_ != memory_;
}

bool FrontendRings::all_stopped() const {
  return std::ranges::all_of(rings_,
                             [](const Ring& ring) { return ring.phase == Phase::kStopped; });
}

void FrontendRings::step() {
  if (link_ != Link::kUp || resetting_) return;
  stop_what_must();
  if (must_all_stop()) {
    if (!all_stopped()) return;  // the last one to stop comes here again
    if (!reset_done_.empty()) return begin_reset();
    tell_all();
  }
  start_what_can();
}

void FrontendRings::stop_what_must() {
  const bool stop_all = must_all_stop();
  for (uint16_t index = 0; index < rings_.size(); ++index) {
    const Ring& ring = rings_[index];
    if (ring.phase != Phase::kRunning) continue;
    if (stop_all || ring.changed || !complete(ring.settings)) stop(index);
    if (link_ != Link::kUp) return;
  }
}

void FrontendRings::tell_all() {
  // Memory comes second, and not before there are features: that is the order of the protocol.
  if (wanted_features_ && wanted_features_ != features_) {
    features_ = wanted_features_;
    if (auto told = port_.set_features(*features_); !told) return break_down(told.error().what());
  }
  if (features_ && wanted_memory_ && wanted_memory_ != memory_) {
    memory_ = wanted_memory_;
    if (auto told = port_.set_memory(*memory_); !told) return break_down(told.error().what());
  }
}

void FrontendRings::start_what_can() {
  for (uint16_t index = 0; index < rings_.size(); ++index) {
    if (broken_ || !features_ || !memory_ || must_all_stop() || link_ != Link::kUp) return;
    if (!port_.ready()) return;
    const Ring& ring = rings_[index];
    if (ring.phase == Phase::kStopped && complete(ring.settings)) start(index);
  }
}

void FrontendRings::start(uint16_t index) {
  Ring& ring = rings_[index];
  // A ring that cannot be is the driver's fault; a device of another make might break over it.
  if (auto queue = Virtqueue::create(*memory_, {.index = index,
                                                .size = ring.settings.size,
                                                .addresses = *ring.settings.addresses,
                                                .features = *features_,
                                                .position = ring.settings.base,
                                                .kick = {},
                                                .call = {}});
      !queue) {
    return break_down(queue.error().what());
  }
  ring.changed = false;
  ring.base_is_new = false;
  ring.phase = Phase::kRunning;
  if (auto started = port_.start_ring(index, ring.settings); !started) {
    if (ring.phase == Phase::kRunning) ring.phase = Phase::kStopped;
    break_down(started.error().what());
  }
}

void FrontendRings::stop(uint16_t index) {
  rings_[index].phase = Phase::kStopping;
  auto done = [this, index, epoch = epoch_, alive = std::weak_ptr<bool>(alive_)](RingPosition at) {
    if (!alive.expired() && epoch == epoch_) stopped(index, at);
  };
  port_.stop_ring(index, std::move(done));
}

void FrontendRings::stopped(uint16_t index, RingPosition position) {
  Ring& ring = rings_[index];
  if (ring.phase != Phase::kStopping) return;
  ring.phase = Phase::kStopped;
  if (!ring.base_is_new) ring.settings.base = position;
  for (auto& waiter : std::exchange(ring.stop_waiters, {})) waiter(position);
  update();
}

void FrontendRings::begin_reset() {
  resetting_ = true;
  port_.reset([this, epoch = epoch_, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired() && epoch == epoch_) finish_reset();
  });
}

void FrontendRings::finish_reset() {
  resetting_ = false;
  features_.reset();
  memory_ = nullptr;
  broken_ = false;
  for (auto& done : std::exchange(reset_done_, {})) done();
  update();
}

// ---- failures

void FrontendRings::break_down(const std::string& why) {
  if (!reset_done_.empty()) return;  // it gets what it needs
  if (std::exchange(broken_, true)) return;
  events_.needs_reset(why);
}

void FrontendRings::lost() {
  if (link_ != Link::kUp) return;
  link_ = Link::kDown;
  ++epoch_;
  resetting_ = false;
  features_.reset();
  memory_ = nullptr;
  for (uint16_t index = 0; index < rings_.size(); ++index) {
    Ring& ring = rings_[index];
    if (std::exchange(ring.phase, Phase::kStopped) == Phase::kStopped || ring.base_is_new) continue;
    auto position = port_.resume_position(index, ring.settings);
    if (position) {
      ring.settings.base = *position;
    } else {
      break_down(position.error().what());
    }
  }
}

void FrontendRings::go_on_without() {
  if (link_ != Link::kDown) return;
  waits_ = false;
  if (!reset_done_.empty()) broken_ = false;
  give_up_waiting();
}

void FrontendRings::restored() {
  if (link_ != Link::kDown) return;
  link_ = Link::kUp;
  waits_ = true;
  // Nothing runs: who waited for that has it.
  for (Ring& ring : rings_) {
    for (auto& waiter : std::exchange(ring.stop_waiters, {})) waiter(ring.settings.base);
  }
  update();
}

void FrontendRings::abandon() {
  lost();
  link_ = Link::kGone;
  give_up_waiting();
  broken_ = false;
  break_down("the device is gone");
}

void FrontendRings::give_up_waiting() {
  for (Ring& ring : rings_) {
    for (auto& waiter : std::exchange(ring.stop_waiters, {})) waiter(ring.settings.base);
  }
  for (auto& done : std::exchange(reset_done_, {})) done();
}

}  // namespace crosvm
