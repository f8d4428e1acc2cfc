#pragma once

#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "devices/net/net_config.h"
#include "virtio/device_backend.h"

namespace crosvm {

/// Runs a card whose packets passt moves, or another back-end of vhost-user: its address, its MTU
/// and the state of its link are ours, the two packet queues the back-end's; there is no control
/// queue. When the back-end goes, the link goes down, and comes up when one listens at the same
/// place again, however long that takes: whoever has gone had its last word with the connection.
///
/// `config.network` is the path of its socket, `socket` a connection to it; `loop` outlives the
/// card. Packed rings are not offered, whatever `config` says. `interrupt`: see
/// VhostUserBackend::Starting::finish. Errors: those of VhostUserBackend, naming the path, and what
/// may help.
Result<std::unique_ptr<DeviceBackend>> run_vhost_user_net(EventLoop& loop, const std::string& name,
                                                          const NetConfig& config, Fd socket,
                                                          const Fd* interrupt = nullptr);

}  // namespace crosvm
