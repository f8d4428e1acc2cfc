#include "virtio/device_host.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "base/log_limit.h"
#include "virtio/device_state.h"
#include "virtio/ring.h"

namespace crosvm {
namespace {

constexpr uint64_t kRingFeatures = uint64_t{1} << VIRTIO_F_VERSION_1 |
                                   uint64_t{1} << VIRTIO_RING_F_EVENT_IDX |
                                   uint64_t{1} << VIRTIO_RING_F_INDIRECT_DESC;

/// What the driver has set up of a ring.
struct RingSettings {
  uint16_t size = 0;
  std::optional<VringAddresses> addresses;
  RingPosition base;
  Fd kick;
  Fd call;
  bool enabled = false;
  std::shared_ptr<InflightLog> inflight;
  std::optional<GuestAddress> device_area_log;

  bool complete() const { return size != 0 && addresses && kick && enabled; }
};

enum class Phase { kStopped, kRunning, kStopping };

/// One ring: what is wanted, and what is.
struct RingState {
  RingSettings settings;
  Phase phase = Phase::kStopped;
  bool changed = false;      // since it was started
  bool base_is_new = false;  // set since it was started: counts more than where it stops
  bool suspend = false;      // its next stop need not wait for what is in flight
  std::vector<std::function<void(RingPosition)>> stop_waiters;
};

}  // namespace

struct DeviceHost::State {
  std::string name;
  Events events;
  LogLimit complaints{"complaints about a virtio driver"};
  std::unique_ptr<VirtioDevice> device;
  uint64_t offered = 0;
  std::vector<RingState> rings;

  // What is wanted and what the device was told: it learns of a change with all rings stopped.
  std::optional<uint64_t> wanted_features;
  std::optional<uint64_t> features;
  const GuestMemory* wanted_memory = nullptr;
  const GuestMemory* memory = nullptr;
  std::shared_ptr<DirtyLog> wanted_dirty;
  std::shared_ptr<DirtyLog> dirty;
  std::vector<std::function<void()>> former_unused;
  std::vector<std::function<void()>> settled;
  std::vector<std::function<void()>> reset_done;  // not empty: a reset is under way

  bool broken = false;       // needs a reset
  bool config_told = false;  // since the driver's last write to the configuration
  bool updating = false;
  bool update_again = false;
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);

  template <class... Args>
  void complain(fmt::format_string<Args...> text, Args&&... args) {
    if (complaints.allows()) {
      log::warn("{}: {}", name, format_text(text, std::forward<Args>(args)...));
    }
  }
  RingState* find(uint16_t index, std::string_view verb);
  template <class T>
  void set(uint16_t index, std::string_view verb, T RingSettings::* field, T value);
  void break_down(const std::string& why);
  void forget_settings();

  void update();
  void step();
  void start_what_can();
  bool must_all_stop() const;
  bool all_stopped() const;
  void apply();
  void finish_reset();
  Result<void> start(uint16_t index);
  void stop(uint16_t index);
  void stopped(uint16_t index, RingPosition position);
};

RingState* DeviceHost::State::find(uint16_t index, std::string_view verb) {
  if (index < rings.size()) return &rings[index];
  complain("{} of queue {}: there are {} queues", verb, index, rings.size());
  return nullptr;
}

template <class T>
void DeviceHost::State::set(uint16_t index, std::string_view verb, T RingSettings::* field,
                            T value) {
  RingState* ring = find(index, verb);
  if (!ring) return;
  if constexpr (std::equality_comparable<T>) {
    if (ring->settings.*field == value) return;
  }
  ring->settings.*field = std::move(value);
  ring->changed = true;
  update();
}

void DeviceHost::State::break_down(const std::string& why) {
  if (!reset_done.empty()) return;  // it gets what it needs
  if (complaints.allows()) log::error("{}: needs a reset: {}", name, why);
  if (std::exchange(broken, true)) return;
  if (events.needs_reset) events.needs_reset();
}

void DeviceHost::State::update() {
  update_again = true;
  if (updating) return;  // a callback changed something: the loop below sees it
  updating = true;
  while (std::exchange(update_again, false)) step();
  updating = false;
}

bool DeviceHost::State::must_all_stop() const {
  return !reset_done.empty() || wanted_features != features || wanted_memory != memory ||
         wanted_dirty != dirty;
}

bool DeviceHost::State::all_stopped() const {
  return std::ranges::all_of(rings,
                             [](const RingState& ring) { return ring.phase == Phase::kStopped; });
}

void DeviceHost::State::step() {
  const bool stop_all = must_all_stop();
  for (uint16_t index = 0; index < rings.size(); ++index) {
    const RingState& ring = rings[index];
    if (ring.phase != Phase::kRunning) continue;
    if (stop_all || ring.changed || !ring.settings.complete()) stop(index);
  }
  if (must_all_stop()) {
    if (!all_stopped()) return;  // the last one to stop comes here again
    apply();
  }
  start_what_can();
  const bool stopping = std::ranges::any_of(
      rings, [](const RingState& ring) { return ring.phase == Phase::kStopping; });
  if (stopping || must_all_stop() || update_again) return;
  for (auto& done : std::exchange(settled, {})) done();
}

void DeviceHost::State::start_what_can() {
  for (uint16_t index = 0; index < rings.size(); ++index) {
    const RingState& ring = rings[index];
    if (broken || !features || !memory || must_all_stop()) return;
    if (ring.phase != Phase::kStopped || !ring.settings.complete()) continue;
    if (auto started = start(index); !started) break_down(started.error().what());
  }
}

void DeviceHost::State::apply() {
  if (!reset_done.empty()) finish_reset();
  if (wanted_memory != memory) {
    memory = wanted_memory;
    for (auto& unused : std::exchange(former_unused, {})) unused();
  }
  dirty = wanted_dirty;
  if (wanted_features != features) {
    features = wanted_features;
    if (features) device->set_features(*features);
  }
}

void DeviceHost::State::finish_reset() {
  device->reset();
  features.reset();
  broken = false;
  for (auto& done : std::exchange(reset_done, {})) done();
}

Result<void> DeviceHost::State::start(uint16_t index) {
  RingState& ring = rings[index];
  const RingSettings& settings = ring.settings;
  VirtqueueSetup setup{.index = index,
                       .size = settings.size,
                       .addresses = *settings.addresses,
                       .features = *features,
                       .position = settings.base,
                       // Copies: the queue takes its own along when it stops.
                       .kick = TRY(settings.kick.duplicate()),
                       .call = {},
                       .inflight = settings.inflight,
                       .dirty = dirty,
                       .device_area_log = settings.device_area_log};
  if (settings.call) setup.call = TRY(settings.call.duplicate());
  Virtqueue queue = TRY(Virtqueue::create(*memory, std::move(setup)));
  ring.changed = false;
  ring.base_is_new = false;
  ring.phase = Phase::kRunning;
  auto started = device->start_queue(index, std::move(queue));
  if (!started) ring.phase = Phase::kStopped;
  return started;
}

void DeviceHost::State::stop(uint16_t index) {
  rings[index].phase = Phase::kStopping;
  auto done = [this, index, alive = std::weak_ptr<bool>(alive)](RingPosition at) {
    if (!alive.expired()) stopped(index, at);
  };
  if (rings[index].suspend) return device->suspend_queue(index, std::move(done));
  device->stop_queue(index, std::move(done));
}

void DeviceHost::State::stopped(uint16_t index, RingPosition position) {
  RingState& ring = rings[index];
  CHECK(ring.phase == Phase::kStopping);
  ring.phase = Phase::kStopped;
  ring.suspend = false;
  if (!ring.base_is_new) ring.settings.base = position;
  for (auto& waiter : std::exchange(ring.stop_waiters, {})) waiter(position);
  update();
}

void DeviceHost::State::forget_settings() {
  wanted_features.reset();
  for (RingState& ring : rings) {
    ring.settings = {};
    ring.base_is_new = true;
  }
}

void DeviceEvents::map_shared(const SharedPlace&, SharedFile, MapDone done) {
  done(fail(Error(std::errc::not_supported, "nobody shows the device's shared memory")));
}

void DeviceEvents::unmap_shared(const SharedPlace&, MapDone done) {
  done(fail(Error(std::errc::not_supported, "nobody shows the device's shared memory")));
}

Result<void> VirtioDevice::set_mtu(uint16_t mtu) {
  return fail(Error(std::errc::not_supported,
                    format_text("an MTU of {} for a device that takes none", mtu)));
}

DeviceHost::DeviceHost(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<DeviceHost>> DeviceHost::create(std::string name, Events events,
                                                       const MakeDevice& make) {
  auto state = std::make_unique<State>();
  state->name = std::move(name);
  state->events = std::move(events);
  std::unique_ptr<DeviceHost> host(new DeviceHost(std::move(state)));
  DeviceEvents& from_device = *host;
  host->state_->device = TRY(make(from_device));
  const VirtioDevice& device = *host->state_->device;
  host->state_->offered = device.device_features() | kRingFeatures;
  host->state_->rings = std::vector<RingState>(device.queue_sizes().size());
  return host;
}

DeviceHost::~DeviceHost() {
  state_->alive.reset();  // a queue that stops late has nobody to tell
}

DeviceInfo DeviceHost::info() const {
  const VirtioDevice& device = *state_->device;
  const auto sizes = device.queue_sizes();
  const auto config = device.config_space();
  const auto shared = device.shared_memory();
  return {.name = state_->name,
          .device_type = device.device_type(),
          .features = state_->offered,
          .queue_sizes = {sizes.begin(), sizes.end()},
          .config = {config.begin(), config.end()},
          .shared_memory = {shared.begin(), shared.end()}};
}

void DeviceHost::set_memory(const GuestMemory& memory, std::function<void()> former_unused) {
  state_->wanted_memory = &memory;
  if (former_unused) state_->former_unused.push_back(std::move(former_unused));
  state_->update();
}

void DeviceHost::set_features(uint64_t features) {
  const uint64_t unknown = features & ~state_->offered;
  if (unknown != 0) state_->complain("features {:#x} were not offered", unknown);
  state_->wanted_features = features & state_->offered;
  state_->update();
}

void DeviceHost::set_vring_num(uint16_t index, uint16_t size) {
  if (!state_->find(index, "size")) return;
  const uint16_t largest = state_->device->queue_sizes()[index];
  if (size == 0 || size > largest) {
    return state_->complain("size {} of queue {}: 1 to {} can be", size, index, largest);
  }
  state_->set(index, "size", &RingSettings::size, size);
}

void DeviceHost::set_vring_addr(uint16_t index, const VringAddresses& addresses) {
  state_->set(index, "addresses", &RingSettings::addresses, std::optional(addresses));
}

void DeviceHost::set_vring_base(uint16_t index, RingPosition position) {
  RingState* ring = state_->find(index, "position");
  if (!ring) return;
  ring->settings.base = position;
  ring->base_is_new = true;  // a running ring stays where it is, and starts there next time
}

void DeviceHost::set_vring_kick(uint16_t index, Fd kick) {
  state_->set(index, "kick descriptor", &RingSettings::kick, std::move(kick));
}

void DeviceHost::set_vring_call(uint16_t index, Fd call) {
  state_->set(index, "call descriptor", &RingSettings::call, std::move(call));
}

void DeviceHost::set_vring_enable(uint16_t index, bool enable) {
  state_->set(index, "enabling", &RingSettings::enabled, enable);
}

void DeviceHost::set_vring_inflight(uint16_t index, std::shared_ptr<InflightLog> log) {
  state_->set(index, "log of requests in flight", &RingSettings::inflight, std::move(log));
}

void DeviceHost::set_dirty_log(std::shared_ptr<DirtyLog> log) {
  state_->wanted_dirty = std::move(log);
  state_->update();
}

void DeviceHost::set_vring_log(uint16_t index, std::optional<GuestAddress> device_area) {
  state_->set(index, "log of dirty pages", &RingSettings::device_area_log, device_area);
}

void DeviceHost::when_settled(std::function<void()> done) {
  state_->settled.push_back(std::move(done));
  state_->update();
}

Result<std::vector<std::byte>> DeviceHost::save_state() const {
  if (!stopped()) return fail(Error::invalid("the state of a device whose rings run"));
  DeviceState state{.device_type = state_->device->device_type(),
                    .features = state_->features.value_or(0),
                    .fields = {}};
  state_->device->save_state(state.fields);
  return state.encode();
}

Result<void> DeviceHost::load_state(std::span<const std::byte> bytes) {
  if (!stopped()) return fail(Error::invalid("the state of a device whose rings run"));
  const DeviceState state = TRY(DeviceState::decode(bytes));
  const uint32_t type = state_->device->device_type();
  if (state.device_type != type) {
    return fail(Error::invalid(
        format_text("the state is of a device of type {} instead of {}", state.device_type, type)));
  }
  if (const uint64_t lacking = state.features & ~state_->offered; lacking != 0) {
    return fail(Error(
        std::errc::not_supported,
        format_text("its driver uses the features {:#x}, which are not offered here", lacking)));
  }
  return state_->device->load_state(state.fields);
}

bool DeviceHost::stopped() const { return state_->all_stopped(); }

void DeviceHost::get_vring_base(uint16_t index, std::function<void(RingPosition)> done,
                                InFlight in_flight) {
  RingState* ring = state_->find(index, "stopping");
  if (!ring) return done({});
  ring->settings.kick = {};
  ring->settings.call = {};
  if (ring->phase == Phase::kStopped) return done(ring->settings.base);
  ring->suspend = in_flight == InFlight::kSuspend && ring->settings.inflight;
  ring->stop_waiters.push_back(std::move(done));
  state_->update();
}

void DeviceHost::reset(std::function<void()> done) {
  state_->forget_settings();
  state_->reset_done.push_back(std::move(done));
  state_->update();
}

void DeviceHost::set_config(size_t offset, std::span<const std::byte> data) {
  const size_t size = state_->device->config_space().size();
  if (offset > size || data.size() > size - offset) {
    return state_->complain("{} bytes written at offset {} of a configuration of {}", data.size(),
                            offset, size);
  }
  if (data.empty()) return;
  state_->config_told = false;
  state_->device->write_config(offset, data);
  // What the device made of it. An earlier change may have crossed this write on its way, and then
  // the transport holds neither.
  if (!state_->config_told) config_changed();
}

void DeviceHost::command(DeviceCommand command, CommandDone done) {
  auto named = [name = state_->name, done = std::move(done)](Result<std::string> answer) {
    done(with_context(std::move(answer), name));
  };
  state_->device->command(std::move(command), std::move(named));
}

Result<void> DeviceHost::set_mtu(uint16_t mtu) const { return state_->device->set_mtu(mtu); }

void DeviceHost::config_changed() {
  if (!state_->device || !state_->events.config_changed) return;
  state_->config_told = true;
  const auto config = state_->device->config_space();
  state_->events.config_changed({config.begin(), config.end()});
}

void DeviceHost::needs_reset(std::string why) { state_->break_down(why); }

void DeviceHost::map_shared(const SharedPlace& place, SharedFile file, MapDone done) {
  const auto& map = state_->events.map_shared;
  if (!map) return DeviceEvents::map_shared(place, std::move(file), std::move(done));
  map(place, std::move(file), std::move(done));
}

void DeviceHost::unmap_shared(const SharedPlace& place, MapDone done) {
  const auto& unmap = state_->events.unmap_shared;
  if (!unmap) return DeviceEvents::unmap_shared(place, std::move(done));
  unmap(place, std::move(done));
}

}  // namespace crosvm
