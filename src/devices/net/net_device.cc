#include "devices/net/net_device.h"

#include <linux/virtio_ids.h>

#include <utility>

#include "base/format.h"
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
      controlq_(context.loop, context.events, [this]() -> Result<QueueTurns::Turn> {
        const bool more = TRY(control_.serve(controlq_.queue()));
        return more ? QueueTurns::Turn::kMore : QueueTurns::Turn::kDone;
      }) {}

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
          .pairs =
              [this](uint16_t pairs) {
                for (size_t i = 1; i < config_.vq_pairs; ++i) {
                  on_pair(i, [used = i < pairs](NetPair& pair) { pair.port().set_used(used); });
                }
              },
          // They are those of the whole network.
          .offloads = [this](uint64_t offloads) { first_->port().set_guest_offloads(offloads); },
          .announced = [this] { card_.announced(); }};
}

void NetDevice::on_pair(size_t index, std::function<void(NetPair&)> work) {
  if (index == 0) return work(*first_);
  others_[index - 1]->post(std::move(work));
}

void NetDevice::on_all_pairs(const std::function<void(NetPair&)>& work) {
  for (size_t i = 0; i < config_.vq_pairs; ++i) on_pair(i, work);
}

bool NetDevice::can_announce() const {
  return (control_.features() & net_feature(VIRTIO_NET_F_GUEST_ANNOUNCE)) != 0;
}

void NetDevice::link_changed(size_t pair, bool up) { card_.set_link(pair, up, can_announce()); }

uint32_t NetDevice::device_type() const { return VIRTIO_ID_NET; }

void NetDevice::set_features(uint64_t features) {
  control_.set_features(features);
  announce_if_due();
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
    return controlq_.start(std::move(queue));
  }
  if (index / 2u >= config_.vq_pairs) {
    return fail(Error::invalid(format_text("queue {} is none of this driver's", index)));
  }
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
    return done(controlq_.stop());
  }
  if (index < 2) return done(first_->stop(is_transmitq(index)));
  auto on_loop = [this, alive = std::weak_ptr(alive_), done = std::move(done)](RingPosition at) {
    loop_.post([alive, done, at] {
      if (!alive.expired()) done(at);
    });
  };
  on_pair(index / 2u, [=](NetPair& pair) { on_loop(pair.stop(is_transmitq(index))); });
}

void NetDevice::reset() {
  control_.reset();
  card_.announced();  // whoever is to do it has gone
  announce_due_ = false;
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
  return TRY(NetDevice::create(config, make_port, context));
}

}  // namespace crosvm
