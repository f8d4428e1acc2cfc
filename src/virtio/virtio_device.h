#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "virtio/device_state.h"
#include "virtio/ring_position.h"
#include "virtio/virtqueue.h"

namespace crosvm {

/// What a device tells the host that runs it. On the device's loop.
class DeviceEvents {
 public:
  virtual ~DeviceEvents() = default;
  /// `config_space` has new contents.
  virtual void config_changed() = 0;
  /// The driver broke a ring, or the device cannot go on: it needs a reset (virtio 1.3 §2.1.2).
  /// `why` is for the log.
  virtual void needs_reset(std::string why) = 0;
};

/// Runs when a queue has stopped, on the device's loop.
using StopDone = std::function<void(RingPosition)>;

/// A virtio device, written once: it does not know whether it runs in the VMM or in a jailed
/// process, nor which transport the guest sees. All calls are made on the one event loop that it
/// was created with (DeviceContext); it never blocks there.
class VirtioDevice {
 public:
  virtual ~VirtioDevice() = default;

  /// Device ID, virtio 1.3 §5.
  virtual uint32_t device_type() const = 0;
  /// The largest size of each queue, in elements; powers of two, at most 32768.
  virtual std::span<const uint16_t> queue_sizes() const = 0;
  /// The bits of this device's type, plus VIRTIO_F_RING_PACKED where it is wanted. DeviceHost adds
  /// VERSION_1, EVENT_IDX and INDIRECT_DESC.
  virtual uint64_t device_features() const = 0;
  /// The device configuration, in full length. Reads by the driver are answered from a copy.
  virtual std::span<const std::byte> config_space() const = 0;
  /// The driver wrote to the configuration; offset and length lie inside it.
  virtual void write_config(size_t /*offset*/, std::span<const std::byte> /*data*/) {}
  /// The negotiated bits, a subset of what was offered, before any queue starts.
  virtual void set_features(uint64_t /*features*/) {}

  /// Network devices that offer VIRTIO_NET_F_MTU: the MTU of the host's side, in bytes, which
  /// config_space shows from now on. Errors: it cannot be.
  virtual Result<void> set_mtu(uint16_t mtu);

  /// Takes the queue and listens to it (Virtqueue::listen). Errors: the device cannot run this
  /// queue, and needs a reset.
  virtual Result<void> start_queue(uint16_t index, Virtqueue queue) = 0;
  /// Asks the queue to stop: no further chain is popped. `done` runs, perhaps before this returns,
  /// once nothing is in flight; by then the device has let go of the queue. Only for a started
  /// queue, and once per start.
  virtual void stop_queue(uint16_t index, StopDone done) = 0;
  /// All queues have stopped; what a driver had set up is forgotten (§2.4).
  virtual void reset() {}

  // All queues have stopped, and start again later, here or in another process.

  /// Adds what the driver would miss in a device of the same configuration that has just been made.
  virtual void save_state(DeviceFields& /*to*/) const {}
  /// Becomes what `save_state` of the same configuration described; `set_features` comes before or
  /// after. Nothing of it is trusted. Errors: it cannot be, and nothing has changed.
  virtual Result<void> load_state(const DeviceFields& from) { return from.expect_only({}); }
};

}  // namespace crosvm
