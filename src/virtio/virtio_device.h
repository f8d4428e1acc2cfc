#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "virtio/device_command.h"
#include "virtio/device_state.h"
#include "virtio/ring_position.h"
#include "virtio/shared_memory.h"
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

  using MapDone = std::function<void(Result<void>)>;
  /// Shows a piece of a file to the driver, in a shared memory region of the device. `done` is
  /// called on the loop, perhaps before this returns or after the device has gone: when it tells of
  /// success the driver may be told of the place. When the device is reset, and when who shows it
  /// goes away, nothing is mapped any more. Errors: not_supported where nobody shows shared memory,
  /// not_connected, no_buffer_space for too many at a time, invalid_argument when it was refused.
  virtual void map_shared(const SharedPlace& place, SharedFile file, MapDone done);
  /// Ends that, for all of a place that was mapped.
  virtual void unmap_shared(const SharedPlace& place, MapDone done);
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
  /// The sizes of its shared memory regions by ID (§2.10), in bytes, multiples of the page size; 0
  /// for one that there is not. At most 256, always the same.
  virtual std::span<const uint64_t> shared_memory() const { return {}; }
  /// The driver wrote to the configuration; offset and length lie inside it.
  virtual void write_config(size_t /*offset*/, std::span<const std::byte> /*data*/) {}
  /// The negotiated bits, a subset of what was offered, before any queue starts.
  virtual void set_features(uint64_t /*features*/) {}

  /// Network devices that offer VIRTIO_NET_F_MTU: the MTU of the host's side, in bytes, which
  /// config_space shows from now on. Errors: it cannot be.
  virtual Result<void> set_mtu(uint16_t mtu);

  /// Does what the VMM asks for. `done` is called on the loop, perhaps before this returns; when
  /// the device goes first, never. Errors: not_supported for a command that it does not know.
  virtual void command(DeviceCommand command, CommandDone done);

  /// Takes the queue and listens to it (Virtqueue::listen). Errors: the device cannot run this
  /// queue, and needs a reset.
  virtual Result<void> start_queue(uint16_t index, Virtqueue queue) = 0;
  /// Asks the queue to stop: no further chain is popped. `done` runs, perhaps before this returns,
  /// once nothing is in flight; by then the device has let go of the queue. Only for a started
  /// queue, and once per start.
  virtual void stop_queue(uint16_t index, StopDone done) = 0;
  /// The same of a queue with a log of requests in flight, which need not end: those whose work the
  /// device can give up, so that it touches neither the guest's memory nor the host's files for
  /// them any more, it lets go of; from the log they are given to a device once more. Of the others
  /// it awaits the end, as here of all.
  virtual void suspend_queue(uint16_t index, StopDone done) { stop_queue(index, std::move(done)); }
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
