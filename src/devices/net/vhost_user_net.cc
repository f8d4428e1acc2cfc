#include "devices/net/vhost_user_net.h"

#include <linux/virtio_ids.h>

#include <utility>
#include <vector>

#include "base/format.h"
#include "base/log.h"
#include "base/socket_pair.h"
#include "devices/net/net_card.h"
#include "devices/net/net_device.h"
#include "devices/net/stream_dialer.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

/// What a back-end may offer. Not a packed ring: where it stood is not known when its back-end is
/// killed. Not what the control queue is for.
constexpr uint64_t kBackendFeatures =
    kNetHostOffloads | kNetGuestOffloads | net_feature(VIRTIO_NET_F_MRG_RXBUF) |
    net_feature(VIRTIO_F_VERSION_1) | net_feature(VIRTIO_RING_F_INDIRECT_DESC) |
    net_feature(VIRTIO_RING_F_EVENT_IDX);

std::vector<std::byte> config_space(const NetConfig& config, uint16_t status) {
  const NetConfigSpace space{.mac = config.mac, .status = status, .mtu = config.mtu};
  const auto bytes = std::as_bytes(std::span(&space, 1));
  return {bytes.begin(), bytes.end()};
}

OwnDeviceConfig own_config(const NetConfig& config) {
  const uint64_t mtu = config.mtu != 0 ? net_feature(VIRTIO_NET_F_MTU) : 0;
  return {.features = net_feature(VIRTIO_NET_F_MAC) | net_feature(VIRTIO_NET_F_STATUS) | mtu,
          .present = config_space(config, VIRTIO_NET_S_LINK_UP),
          .absent = config_space(config, 0)};
}

/// What gives a card its next back-end. On the loop.
class Successors : public std::enable_shared_from_this<Successors> {
 public:
  explicit Successors(std::string path) : path_(std::move(path)) {}

  Result<void> prepare(EventLoop& loop) {
    dialer_ =
        TRY(StreamDialer::create(loop, path_, [this](Fd socket) { take_over(std::move(socket)); }));
    return {};
  }
  void set_card(VhostUserBackend::Remote card) { card_ = std::move(card); }
  void lost() {
    log::error("{}: passt has gone; the link is down", path_);
    dialer_->dial();
  }

 private:
  void take_over(Fd socket) {
    card_.reconnect(std::move(socket), [weak = weak_from_this()](const Result<void>& result) {
      if (auto self = weak.lock()) self->took_over(result);
    });
  }
  void took_over(const Result<void>& result) {
    if (result) {
      refusal_.clear();
      return log::info("{}: connected again; the link is up", path_);
    }
    // Said once, however often it is tried.
    if (refusal_ != result.error().what()) log::warn("{}: {}", path_, result.error().what());
    refusal_ = result.error().what();
    dialer_->dial();
  }

  const std::string path_;
  std::unique_ptr<StreamDialer> dialer_;
  VhostUserBackend::Remote card_;
  std::string refusal_;
};

}  // namespace

Result<std::unique_ptr<DeviceBackend>> run_vhost_user_net(EventLoop& loop, const std::string& name,
                                                          const NetConfig& config, Fd socket,
                                                          const Fd* interrupt) {
  const uint64_t mergeable = net_feature(VIRTIO_NET_F_MRG_RXBUF);
  // They go with the backend's half on the loop, which holds this function.
  auto successors = std::make_shared<Successors>(config.network);
  TRY(successors->prepare(loop));
  VhostUserOptions options{
      .name = name,
      .device_type = VIRTIO_ID_NET,
      .queue_sizes = std::vector<uint16_t>(2, NetDevice::kQueueSize),
      .own_config = own_config(config),
      .hidden_features = ~kBackendFeatures | (config.mrg_rxbuf ? 0 : mergeable),
      .disconnected = [successors](const Error& cause) {
        successors->lost();
        // One that only does not answer may still write to the rings: a driver that wants them back
        // waits until the user has put another in its place.
        return peer_has_gone(cause.code()) ? AfterLoss::kGoOnWithout : AfterLoss::kAwaitAnother;
      }};
  if (config.mtu != 0) options.mtu = config.mtu;
  auto backend = VhostUserBackend::create(loop, std::move(socket), std::move(options), interrupt);
  if (!backend) {
    return fail(
        Error(backend.error().code(), format_text("{} at {}; was passt started with --vhost-user?",
                                                  backend.error().what(), config.network)));
  }
  // Behind what lets the loop hear of its end.
  loop.post([successors, card = (*backend)->remote()] { successors->set_card(card); });
  return std::move(*backend);
}

}  // namespace crosvm
