#include "devices/net/vhost_net.h"

#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <sys/ioctl.h>

// What <linux/vhost.h> includes has a part for old rings that is no C++.
#ifndef VIRTIO_RING_NO_LEGACY
#define VIRTIO_RING_NO_LEGACY
#endif
#include <linux/vhost.h>

#include <chrono>
#include <memory>
#include <utility>

#include "base/format.h"
#include "devices/net/net_card.h"
#include "devices/net/net_control.h"
#include "devices/net/net_device.h"
#include "devices/net/tap_port.h"
#include "vhost/vhost_kernel_backend.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

/// What the kernel does not do of such a card: its control queue, and the configuration with the
/// state of the link. Ports only set up the queues of the tap. On the loop.
///
/// Which packets the driver wants to receive is taken note of and has no effect: the kernel passes
/// on all that the tap gets, and a driver must take what it did not ask for (virtio 1.3 §5.1.6.5.1:
/// filtering is best-effort).
class KernelCard : public std::enable_shared_from_this<KernelCard>, private DeviceEvents {
 public:
  KernelCard(EventLoop& loop, const NetConfig& config, std::vector<Fd> taps)
      : loop_(loop),
        config_(config),
        card_(config_, *this),
        control_(config_.mac, config_.vq_pairs, actions()) {
    for (Fd& tap : taps) {
      ports_.push_back(std::make_unique<TapPort>(loop, std::move(tap), config_.network));
    }
    control_.reset();
  }

  /// All that the card offers.
  uint64_t features() const {
    return net_card_features(config_, ports_.front()->offloads()) |
           net_feature(VIRTIO_F_VERSION_1) | net_feature(VIRTIO_RING_F_EVENT_IDX) |
           net_feature(VIRTIO_RING_F_INDIRECT_DESC);
  }
  std::vector<std::byte> space() const { return {card_.space().begin(), card_.space().end()}; }
  Result<void> serve(Virtqueue& queue) {
    if (TRY(control_.serve(queue))) queue.process_soon();
    return {};
  }
  void negotiated(std::optional<uint64_t> features) {
    if (features) return control_.set_features(*features);
    control_.reset();
    card_.announced();
    // The next driver may not know what the kernel says of packets for this one.
    for (const auto& port : ports_) port->discard_waiting();
  }
  void begin(VhostKernelControls controls) {
    controls_ = std::move(controls);
    for (size_t i = 0; i < ports_.size(); ++i) {
      ports_[i]->begin_unwatched({.receivable = [] {},
                                  .sendable = [] {},
                                  .link_changed = [this, i](bool up) { link_changed(i, up); }});
    }
    check_links();
  }

 private:
  NetControl::Actions actions() {
    return {.filter = [](const NetFilter&) {},
            .mac = [this](const MacAddress& mac) { card_.set_mac(mac); },
            .pairs = [this](uint16_t pairs) { use_pairs(pairs); },
            .offloads = [this](uint64_t bits) { ports_.front()->set_guest_offloads(bits); },
            .announced = [this] { card_.announced(); }};
  }
  /// The kernel has the queues that are attached.
  void use_pairs(uint16_t pairs) {
    if (controls_.use_pairs && pairs < used_pairs_) controls_.use_pairs(pairs);
    for (size_t i = 1; i < ports_.size(); ++i) ports_[i]->set_used(i < pairs);
    if (controls_.use_pairs && pairs >= used_pairs_) controls_.use_pairs(pairs);
    used_pairs_ = pairs;
  }
  /// Now and then, as nobody tells: a watched tap would wake us for each packet of the kernel's.
  void check_links() {
    for (const auto& port : ports_) port->check_link();
    loop_.after(std::chrono::seconds(1), [weak = weak_from_this()] {
      if (auto card = weak.lock()) card->check_links();
    });
  }
  void link_changed(size_t pair, bool up) {
    const bool may_announce = (control_.features() & net_feature(VIRTIO_NET_F_GUEST_ANNOUNCE)) != 0;
    card_.set_link(pair, up, may_announce);
  }
  /// Perhaps from inside a command, which is no place to tell it.
  void config_changed() override {
    loop_.post([weak = weak_from_this()] {
      auto card = weak.lock();
      if (card && card->controls_.show_config) card->controls_.show_config(card->space());
    });
  }
  void needs_reset(std::string) override {}

  EventLoop& loop_;
  const NetConfig config_;
  NetCard card_;
  std::vector<std::unique_ptr<TapPort>> ports_;
  NetControl control_;
  VhostKernelControls controls_;
  uint16_t used_pairs_ = 0;
};

}  // namespace

Result<VhostNetResources> open_vhost_net(const std::string& device, Tap tap) {
  VhostNetResources opened{.devices = {}, .taps = std::move(tap.queues)};
  for (size_t i = 0; i < opened.taps.size(); ++i) {
    auto made = open_path(device, O_RDWR);
    if (!made) {
      return fail(Error(
          made.error().code(),
          format_text("{}; vhost-net needs the kernel's module (modprobe vhost_net) and access to "
                      "its device, or leave it out",
                      made.error().what())));
    }
    uint64_t features = 0;
    if (::ioctl(made->get(), VHOST_GET_FEATURES, &features) != 0) {
      const Error why = Error::from_errno("asking the features of", device);
      return fail(Error(why.code(), format_text("{}; it is no device of the kernel's vhost: give "
                                                "/dev/vhost-net, or vhost-net without a device",
                                                why.what())));
    }
    opened.devices.push_back(*std::move(made));
  }
  return opened;
}

Result<std::unique_ptr<DeviceBackend>> run_vhost_net(EventLoop& loop, const std::string& name,
                                                     const NetConfig& config,
                                                     VhostNetResources resources) {
  NetConfig used = config;
  used.packed_queue = false;
  std::vector<Fd> taps;
  for (const Fd& tap : resources.taps) taps.push_back(TRY(tap.duplicate()));
  // It goes away with the backend's half on the loop, which holds these functions.
  auto card = std::make_shared<KernelCard>(loop, used, std::move(taps));
  VhostKernelOptions options{
      .info = {.name = name,
               .device_type = VIRTIO_ID_NET,
               .features = card->features(),
               .queue_sizes =
                   std::vector<uint16_t>(2 * size_t{used.vq_pairs} + 1, NetDevice::kQueueSize),
               .config = card->space()},
      .kind = VhostNet{.devices = std::move(resources.devices), .taps = std::move(resources.taps)},
      .serve = [card](Virtqueue& queue) { return card->serve(queue); },
      .negotiated = [card](std::optional<uint64_t> features) { card->negotiated(features); },
      .begin =
          [weak = std::weak_ptr(card)](VhostKernelControls controls) {
            if (auto there = weak.lock()) there->begin(std::move(controls));
          }};
  return TRY(VhostKernelBackend::create(loop, std::move(options)));
}

}  // namespace crosvm
