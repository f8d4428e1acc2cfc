#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "devices/net/net_config.h"
#include "devices/net/tap.h"
#include "virtio/device_backend.h"

namespace crosvm {

/// What a card lives on whose packets the host's kernel moves: a vhost-net device for each queue of
/// a tap.
struct VhostNetResources {
  std::vector<Fd> devices;
  std::vector<Fd> taps;
};

/// Opens `device`, which is /dev/vhost-net or its like, for each queue of the tap. Errors name it,
/// the cause and the fix.
Result<VhostNetResources> open_vhost_net(const std::string& device, Tap tap);

/// Runs such a card in this process (devices.md 5.2): the kernel serves the packet queues, we the
/// control queue. `loop` outlives it. Packed rings are not offered, whatever `config` says. Errors:
/// those of VhostKernelBackend.
Result<std::unique_ptr<DeviceBackend>> run_vhost_net(EventLoop& loop, const std::string& name,
                                                     const NetConfig& config,
                                                     VhostNetResources resources);

}  // namespace crosvm
