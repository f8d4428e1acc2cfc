#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "vhost/loop_backend.h"
#include "virtio/virtqueue.h"

namespace crosvm {

class VhostKernelDevice;

/// /dev/vhost-net: queues 2n and 2n + 1 belong to `devices[n]` and move the packets of `taps[n]`, a
/// queue of a tap with IFF_VNET_HDR and a header of 12 bytes.
struct VhostNet {
  std::vector<Fd> devices;
  std::vector<Fd> taps;
};

/// /dev/vhost-vsock: queues 0 and 1; it runs when both do.
struct VhostVsock {
  Fd device;
  uint64_t guest_cid = 0;
};

/// What who serves the rest of a device may do with it, on the loop.
struct VhostKernelControls {
  /// The driver sees another configuration. Not from inside `serve` and `negotiated`.
  std::function<void(std::vector<std::byte> config)> show_config;
  /// Of a network device only the first so many taps have packets for the guest from now on, all at
  /// first; what is in the other transmitqs is sent all the same. The queue of such a tap is
  /// attached before, one of the others detached after that. Only from inside `serve` and
  /// `negotiated`.
  std::function<void(uint16_t pairs)> use_pairs;
};

struct VhostKernelOptions {
  /// What the guest is to see of the device. The kernel knows of no configuration, and serves the
  /// queues named above alone. Of the features those of rings
  /// (bits 24 to 40), of a network device also VIRTIO_NET_F_MRG_RXBUF and of a socket device all
  /// are offered only if the kernel offers them too.
  DeviceInfo info;
  std::variant<VhostNet, VhostVsock> kind;
  /// Serves a queue that the kernel does not, on the loop, whenever the driver has kicked: gives
  /// back at once what it pops. Of a network device whose driver refused VIRTIO_NET_F_MQ these are
  /// all but the first two. Errors: the ring is broken. None: such queues are left alone.
  std::function<Result<void>(Virtqueue& queue)> serve = {};
  /// What the driver negotiated, before any queue runs; nothing: there was a reset. On the loop.
  std::function<void(std::optional<uint64_t> features)> negotiated = {};
  /// Called on the loop before the two above.
  std::function<void(VhostKernelControls controls)> begin = {};
};

/// A device that the kernel runs (devices.md 5.2, 5.3): the verbs as ioctls of linux/vhost.h. These
/// may take their time, so they are made on `loop`; a ring that stops is the longest of them, as
/// the kernel finishes what it is at. Split rings only.
class VhostKernelBackend : public LoopBackend {
 public:
  /// Makes this process the owner of the devices: it maps the guest's memory. `loop` outlives the
  /// backend. Errors: invalid_argument for queues without devices, else the errno of the ioctl,
  /// naming the device.
  static Result<std::unique_ptr<VhostKernelBackend>> create(EventLoop& loop,
                                                            VhostKernelOptions options);
  /// No ring runs any more when this returns.
  ~VhostKernelBackend() override;

 private:
  explicit VhostKernelBackend(std::shared_ptr<VhostKernelDevice> device);
  VhostKernelDevice& kernel_;
};

}  // namespace crosvm
