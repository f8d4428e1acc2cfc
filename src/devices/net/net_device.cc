#include "devices/net/net_device.h"

#include <linux/virtio_ids.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "devices/net/tap_port.h"

namespace crosvm {
namespace {

constexpr uint32_t kTagMtu = 16;

bool is_transmitq(uint16_t index) { return index % 2 == 1; }

}  // namespace

NetDevice::NetDevice(const NetConfig& config, const DeviceContext& context)
    : config_(config),
      loop_(context.loop),
      events_(context.events),
      queue_sizes_(2 * size_t{config.vq_pairs} + 1, kQueueSize),
      card_(config, context.events),
      control_(config.mac, config.vq_pairs, actions()),
      controlq_(context.loop, context.events, [this] { return serve_commands(); }),
      receives_(config.vq_pairs) {}

Result<std::unique_ptr<NetDevice>> NetDevice::create(const NetConfig& config,
                                                     const MakePort& make_port,
                                                     const DeviceContext& context) {
  std::unique_ptr<NetDevice> device(new NetDevice(config, context));
  TRY(device->make_pairs(make_port, context));
  device->reset();
  return device;
}

Result<void> NetDevice::make_pairs(const MakePort& make_port, const DeviceContext& context) {
  auto port = TRY(make_port(context.loop, 0));
  uint64_t offloads = port->offloads();
  first_ = std::make_unique<NetPair>(context.loop, context.events, std::move(port),
                                     [this](bool up) { link_changed(0, up); });
  for (size_t pair = 1; pair < config_.vq_pairs; ++pair) {
    auto to_loop = [this, alive = std::weak_ptr(alive_)](std::function<void()> work) {
      loop_.post([alive, work = std::move(work)] {
        if (!alive.expired()) work();
      });
    };
    NetThread::Events events{
        .broken =
            [this, to_loop](std::string why) {
              to_loop([this, why = std::move(why)] { events_.needs_reset(why); });
            },
        .link_changed = [this, to_loop,
                         pair](bool up) { to_loop([=, this] { link_changed(pair, up); }); }};
    others_.push_back(TRY(NetThread::create(
        [&](EventLoop& loop) -> Result<std::unique_ptr<NetPort>> {
          auto made = TRY(make_port(loop, pair));
          offloads &= made->offloads();
          return made;
        },
        std::move(events))));
  }
  offered_ = net_card_features(config_, offloads);
  return {};
}

NetControl::Actions NetDevice::actions() {
  return {.filter =
              [this](const NetFilter& filter) {
                on_all_pairs([filter](NetPair& pair) { pair.receiver().set_filter(filter); });
              },
          .mac = [this](const MacAddress& mac) { card_.set_mac(mac); },
          .pairs = [this](uint16_t pairs) { use_pairs(pairs); },
          // They are those of the whole network.
          .offloads = [this](uint64_t offloads) { first_->port().set_guest_offloads(offloads); },
          .announced = [this] { card_.announced(); },
          .obeyed = [this] { remember(); }};
}

/// A command has had its effect when it comes back (§5.1.6.5.2, §5.1.6.5.5), on every thread.
Result<QueueTurns::Turn> NetDevice::serve_commands() {
  using Turn = QueueTurns::Turn;
  if (others_.empty()) return TRY(control_.serve(controlq_.queue())) ? Turn::kMore : Turn::kDone;
  if (command_) return Turn::kDone;  // its turn comes
  command_ = TRY(control_.take(controlq_.queue()));
  if (command_) after_all_pairs([this] { give_back_command(); });
  return Turn::kDone;
}

void NetDevice::give_back_command() {
  controlq_.queue().push_used(std::move(command_->chain), command_->written);
  command_.reset();
  controlq_.queue().signal_used_if_needed();
  if (auto stopped = std::exchange(control_stopped_, nullptr)) return stopped(controlq_.stop());
  controlq_.run();
}

void NetDevice::use_pair(size_t index, bool used) {
  on_pair(index, [used](NetPair& pair) { pair.port().set_used(used); });
}

void NetDevice::use_pairs(uint16_t count) {
  for (size_t i = 1; i < config_.vq_pairs; ++i) use_pair(i, i < count);
}

/// Another VMM may keep the control queue to itself: the rings of the pairs that its driver uses
/// are those that run. Looked at when all has been said that is said at a time, the control queue's
/// start and the end of all included.
void NetDevice::receiveq_changed(size_t pair, bool runs) {
  receives_[pair] = runs;
  if (pair == 0) return;
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) use_pairs_that_run();
  });
}

void NetDevice::use_pairs_that_run() {
  if (controlq_.running() || std::ranges::find(receives_, true) == receives_.end()) return;
  for (size_t i = 1; i < config_.vq_pairs; ++i) use_pair(i, receives_[i]);
}

void NetDevice::on_pair(size_t index, std::function<void(NetPair&)> work) {
  if (index == 0) return work(*first_);
  others_[index - 1]->post(std::move(work));
}

void NetDevice::on_all_pairs(const std::function<void(NetPair&)>& work) {
  for (size_t i = 0; i < config_.vq_pairs; ++i) on_pair(i, work);
}

void NetDevice::after_all_pairs(std::function<void()> done) {
  auto left = std::make_shared<std::atomic<size_t>>(others_.size());
  for (const auto& other : others_) {
    other->post([this, alive = std::weak_ptr(alive_), left, done](NetPair&) {
      if (--*left != 0) return;
      loop_.post([alive, done] {
        if (!alive.expired()) done();
      });
    });
  }
}

bool NetDevice::can_announce() const {
  return (control_.features() & net_feature(VIRTIO_NET_F_GUEST_ANNOUNCE)) != 0;
}

void NetDevice::link_changed(size_t pair, bool up) { card_.set_link(pair, up, can_announce()); }

uint32_t NetDevice::device_type() const { return VIRTIO_ID_NET; }

void NetDevice::set_features(uint64_t features) {
  control_.set_features(features);
  go_on_as_former(features);
  remember();
  announce_if_due();
}

void NetDevice::keep_in(NetMemory memory) {
  former_ = memory.load();
  memory_.emplace(std::move(memory));
}

/// The driver is the same, unless it has been reset meanwhile.
void NetDevice::go_on_as_former(uint64_t features) {
  const auto former = std::exchange(former_, std::nullopt);
  if (!former || former->features != features) return;
  if (auto loaded = control_.load_state(former->fields); !loaded) {
    log::warn("{}: what the driver had set up is lost: {}", config_.network, loaded.error().what());
  }
}

void NetDevice::remember() {
  if (!memory_ || former_) return;
  DeviceState state{.device_type = device_type(), .features = control_.features(), .fields = {}};
  control_.save_state(state.fields);
  memory_->store(state);
}

/// The features may come before the state or after it.
void NetDevice::announce_if_due() {
  if (announce_due_ && can_announce()) card_.announce();
  announce_due_ = announce_due_ && control_.features() == 0;
}

Result<void> NetDevice::set_mtu(uint16_t mtu) {
  card_.set_mtu(mtu);
  return {};
}

Result<void> NetDevice::start_queue(uint16_t index, Virtqueue queue) {
  const uint64_t features = control_.features();
  if (index == net_control_queue(config_, features)) {
    use_pairs(control_.pairs());
    return controlq_.start(std::move(queue));
  }
  if (index / 2u >= config_.vq_pairs) {
    return fail(Error::invalid(format_text("queue {} is none of this driver's", index)));
  }
  if (!is_transmitq(index)) receiveq_changed(index / 2u, true);
  if (index < 2) return first_->start(is_transmitq(index), std::move(queue), features);
  // Shared, as what is posted must be copyable.
  auto shared = std::make_shared<Virtqueue>(std::move(queue));
  auto broken = [this, alive = std::weak_ptr(alive_)](const std::string& why) {
    loop_.post([this, alive, why] {
      if (!alive.expired()) events_.needs_reset(why);
    });
  };
  on_pair(index / 2u, [=](NetPair& pair) {
    auto started = pair.start(is_transmitq(index), std::move(*shared), features);
    if (!started) broken(started.error().what());
  });
  return {};
}

void NetDevice::stop_queue(uint16_t index, StopDone done) {
  if (index == net_control_queue(config_, control_.features())) {
    if (!command_) return done(controlq_.stop());
    control_stopped_ = std::move(done);
    return;
  }
  if (!is_transmitq(index)) receiveq_changed(index / 2u, false);
  if (index < 2) return done(first_->stop(is_transmitq(index)));
  auto on_loop = [this, alive = std::weak_ptr(alive_), done = std::move(done)](RingPosition at) {
    loop_.post([alive, done, at] {
      if (!alive.expired()) done(at);
    });
  };
  on_pair(index / 2u, [=](NetPair& pair) { on_loop(pair.stop(is_transmitq(index))); });
}

void NetDevice::reset() {
  former_.reset();
  receives_.assign(config_.vq_pairs, false);  // also those that could not start
  control_.reset();
  card_.announced();  // whoever is to do it has gone
  announce_due_ = false;
  remember();
}

void NetDevice::save_state(DeviceFields& to) const {
  control_.save_state(to);
  to.set(kTagMtu, card_.mtu());
}

Result<void> NetDevice::load_state(const DeviceFields& from) {
  TRY(from.expect_only(
      {NetControl::kTagFilter, NetControl::kTagPairs, NetControl::kTagOffloads, kTagMtu}));
  const auto mtu = TRY(from.get<uint16_t>(kTagMtu));
  TRY(control_.load_state(from));
  card_.set_mtu(mtu);
  announce_due_ = true;
  announce_if_due();
  return {};
}

Result<std::unique_ptr<VirtioDevice>> NetFactory::create(const Config& config, Resources resources,
                                                         const DeviceContext& context) {
  if (resources.taps.size() != config.vq_pairs) {
    return fail(
        Error::invalid(format_text("{} queues of tap {} for {} queue pairs", resources.taps.size(),
                                   config.network, config.vq_pairs)));
  }
  auto make_port = [&](EventLoop& loop, size_t pair) -> Result<std::unique_ptr<NetPort>> {
    return std::make_unique<TapPort>(loop, std::move(resources.taps[pair]), config.network);
  };
  auto device = TRY(NetDevice::create(config, make_port, context));
  if (context.restarts && resources.memory) {
    device->keep_in(TRY(NetMemory::map(resources.memory)));
  }
  return device;
}

}  // namespace crosvm
