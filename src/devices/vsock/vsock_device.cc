#include "devices/vsock/vsock_device.h"

#include <linux/virtio_ids.h>
#include <linux/virtio_vsock.h>

#include <utility>

#include "base/format.h"
#include "devices/vsock/vsock_host.h"

namespace crosvm {
namespace {

enum Queue : uint16_t { kReceiveq, kTransmitq, kEventq };
constexpr int kPacketsInATurn = 64;

// Fields of the device's state.
constexpr uint32_t kStateGuestCid = 1;

}  // namespace

VsockDevice::VsockDevice(const VsockConfig& config, const DeviceContext& context)
    : guest_cid_(config.cid),
      queue_sizes_(config.queue_sizes),
      receiveq_(context.loop, context.events, [this] { return serve_receiveq(); }),
      transmitq_(context.loop, context.events, [this] { return serve_transmitq(); }),
      eventq_(context.loop, context.events, [this] { return serve_eventq(); }) {}

Result<std::unique_ptr<VsockDevice>> VsockDevice::create(const VsockConfig& config,
                                                         VsockResources resources,
                                                         const DeviceContext& context) {
  std::unique_ptr<VsockDevice> device(new VsockDevice(config, context));
  device->connections_ = TRY(VsockConnections::create(
      context.loop, config, std::move(resources.dialer), std::move(resources.listeners),
      [raw = device.get()] { raw->receiveq_.wake(); }));
  return device;
}

uint32_t VsockDevice::device_type() const { return VIRTIO_ID_VSOCK; }

std::span<const std::byte> VsockDevice::config_space() const {
  static_assert(sizeof(guest_cid_) == sizeof(virtio_vsock_config));
  return std::as_bytes(std::span(&guest_cid_, 1));
}

void VsockDevice::set_features(uint64_t features) {
  connections_->set_seqpacket((features & kVsockSeqpacket) != 0);
}

Result<void> VsockDevice::start_queue(uint16_t index, Virtqueue queue) {
  TRY(queues_[index]->start(std::move(queue)));
  connections_->set_running(receiveq_.running() && transmitq_.running());
  return {};
}

void VsockDevice::stop_queue(uint16_t index, StopDone done) {
  if (index != kEventq) connections_->set_running(false);
  done(queues_[index]->stop());
}

void VsockDevice::reset() {
  connections_->reset();
  reset_due_ = false;
  transmitq_held_ = false;
}

Result<QueueTurns::Turn> VsockDevice::serve_receiveq() {
  int left = kPacketsInATurn;
  while (left > 0 && connections_->has_packet()) {
    auto chain = TRY(receiveq_.queue().pop());
    if (!chain) break;
    --left;
    const uint32_t written = connections_->write_packet(chain->device_writable());
    if (written == 0 && !connections_->has_packet()) {
      receiveq_.queue().undo_pop(*std::move(chain));
      break;
    }
    receiveq_.queue().push_used(*std::move(chain), written);
  }
  receiveq_.queue().signal_used_if_needed();
  if (connections_->can_take() && std::exchange(transmitq_held_, false)) transmitq_.wake();
  return left > 0 ? QueueTurns::Turn::kDone : QueueTurns::Turn::kMore;
}

/// What the guest sends leads to answers, which wait when its receive buffers are used up. Then it
/// is not heard either (virtio 1.3 §5.10.6.1, "Virtqueue Flow Control").
Result<QueueTurns::Turn> VsockDevice::serve_transmitq() {
  int left = kPacketsInATurn;
  while (left > 0 && connections_->can_take()) {
    auto chain = TRY(transmitq_.queue().pop());
    if (!chain) break;
    --left;
    connections_->take_packet(chain->device_readable());
    transmitq_.queue().push_used(*std::move(chain), 0);
  }
  transmitq_.queue().signal_used_if_needed();
  transmitq_held_ = !connections_->can_take();
  if (connections_->has_packet()) receiveq_.run();
  return left > 0 ? QueueTurns::Turn::kDone : QueueTurns::Turn::kMore;
}

/// Virtio 1.3 §5.10.6.7.
Result<QueueTurns::Turn> VsockDevice::serve_eventq() {
  if (!reset_due_) return QueueTurns::Turn::kDone;
  auto chain = TRY(eventq_.queue().pop());
  if (!chain) return QueueTurns::Turn::kDone;
  const uint32_t event = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET;
  const bool fits = chain->device_writable().write(0, event).has_value();
  eventq_.queue().push_used(*std::move(chain), fits ? sizeof(event) : 0);
  eventq_.queue().signal_used_if_needed();
  reset_due_ = !fits;
  return fits ? QueueTurns::Turn::kDone : QueueTurns::Turn::kMore;
}

void VsockDevice::save_state(DeviceFields& to) const { to.set(kStateGuestCid, guest_cid_); }

Result<void> VsockDevice::load_state(const DeviceFields& from) {
  TRY(from.expect_only({kStateGuestCid}));
  const auto cid = TRY(from.get<uint64_t>(kStateGuestCid));
  if (cid != guest_cid_) {
    return fail(Error::invalid(
        format_text("the saved socket device has context ID {}, and this one {}; give it the same",
                    cid, guest_cid_)));
  }
  reset_due_ = true;  // this device has none of the connections that the driver knows
  return {};
}

// ---- VsockFactory

Result<VsockConfig> VsockFactory::parse(const KeyValues& text) {
  VsockConfig config = TRY(VsockConfig::parse(text));
  if (config.backend == VsockConfig::Backend::kUser) return config;
  return fail(Error::invalid("this socket device is the kernel's; it has no process of its own"));
}

Result<VsockResources> VsockFactory::open(const Config& config) {
  if (!config.connect.empty() || !config.listen.empty()) {
    return fail(Error(std::errc::not_supported, "nobody is there to connect its sockets"));
  }
  return std::move(TRY(VsockHost::open(config)).resources);
}

Result<std::unique_ptr<VirtioDevice>> VsockFactory::create(const Config& config,
                                                           Resources resources,
                                                           const DeviceContext& context) {
  if (!resources.dialer || resources.listeners.size() != config.listen.size()) {
    return fail(Error::invalid("vsock: the descriptors do not match the configuration"));
  }
  return TRY(VsockDevice::create(config, std::move(resources), context));
}

}  // namespace crosvm
