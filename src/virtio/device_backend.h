#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "memory/guest_memory.h"
#include "virtio/device_command.h"
#include "virtio/ring_position.h"
#include "virtio/virtqueue.h"

namespace crosvm {

/// What a transport must know of a device before a driver comes.
struct DeviceInfo {
  std::string name;  ///< names the device in logs: "block0"
  uint32_t device_type = 0;
  uint64_t features = 0;  ///< offered by the device; the transport adds its own
  std::vector<uint16_t> queue_sizes;
  std::vector<std::byte> config;
  std::vector<uint64_t> shared_memory{};  ///< sizes of the regions by ID, bytes; 0: there is none
};

/// What a backend tells its transport. On any thread.
class BackendListener {
 public:
  virtual ~BackendListener() = default;
  /// The whole new device configuration.
  virtual void config_changed(std::vector<std::byte> config) = 0;
  /// DEVICE_NEEDS_RESET is due (virtio 1.3 §2.1.2); the cause has been logged.
  virtual void needs_reset() = 0;
};

/// A device as its transport sees it, wherever it runs: the verbs of vhost (vhost-user protocol,
/// "Front-end message types") as an interface. No call blocks, so a vCPU thread may make any of
/// them; they take effect in order. What fails is told by `needs_reset`.
///
/// A ring runs when features, memory, size, addresses and a kick descriptor are there and it is
/// enabled; whatever the order they came in.
class DeviceBackend {
 public:
  virtual ~DeviceBackend() = default;

  virtual const DeviceInfo& info() const = 0;
  /// Null: none. When this returns the former listener is not called again, nor being called; the
  /// new one has been told of a configuration that is no longer that of `info`.
  virtual void set_listener(BackendListener* listener) = 0;

  virtual void set_features(uint64_t features) = 0;
  /// The guest's RAM, which outlives the backend.
  virtual void set_memory(const GuestMemory& memory) = 0;
  virtual void set_vring_num(uint16_t index, uint16_t size) = 0;
  virtual void set_vring_addr(uint16_t index, const VringAddresses& addresses) = 0;
  virtual void set_vring_base(uint16_t index, RingPosition position) = 0;
  /// Eventfds; the backend owns what it is given.
  virtual void set_vring_kick(uint16_t index, Fd kick) = 0;
  virtual void set_vring_call(uint16_t index, Fd call) = 0;
  virtual void set_vring_enable(uint16_t index, bool enable) = 0;
  /// Stops the ring. `done` runs on any thread once nothing is in flight; the ring's kick and call
  /// descriptors are gone by then.
  virtual void get_vring_base(uint16_t index, std::function<void(RingPosition)> done) = 0;
  /// Stops every ring and forgets all that was set but the memory. `done` runs on any thread.
  virtual void reset(std::function<void()> done) = 0;

  /// The driver wrote to the device configuration. The answer is `config_changed`, with what the
  /// device made of it. When writes come faster than the device takes them, at least the last one
  /// to each place reaches it.
  virtual void set_config(size_t offset, std::vector<std::byte> data) = 0;

  /// Not one of vhost: asks a device of ours for something (VirtioDevice::command). `done` is
  /// called once, on any thread, perhaps before this returns, and however long the device takes.
  /// Errors: not_supported for a command that it does not know, and where nobody can ask it;
  /// not_connected when it goes first; else what the device says.
  virtual void command(DeviceCommand command, CommandDone done);
};

}  // namespace crosvm
