#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/device_backend.h"
#include "vmm/vhost_user_request.h"

namespace crosvm {

/// How long a back-end is waited for.
struct VhostUserPatience {
  /// While nobody listens it is tried again each millisecond for so long; without it, it is tried
  /// once.
  std::optional<std::chrono::milliseconds> connect_timeout{};
  /// Ends every wait for a back-end (wait_ready). Borrowed until all have been waited for.
  const Fd* interrupt = nullptr;
};

/// A stream socket that is connected with the vhost-user back-end at `path`, or the descriptor N of
/// /proc/self/fd/N. Errors name the socket, the cause and the fix; interrupted.
Result<Fd> connect_vhost_user(const std::string& path, const VhostUserPatience& patience);

/// The devices of a VM that other processes serve, in the order of the command line.
class VhostUserFrontends {
 public:
  /// A back-end has gone while the VM ran; the cause has been logged. On the loop.
  using Lost = std::function<void(const std::string& device, const std::string& socket)>;

  /// Connects with each and begins to talk; what they say is taken by `finish`. `loop` outlives the
  /// backends. Errors name the device, the cause and the fix.
  Result<void> connect(const std::vector<VhostUserRequest>& requests,
                       const VhostUserPatience& patience, EventLoop& loop, const Lost& lost);
  /// Waits for what each has to say of itself, and appends them. Once. Errors: those of the
  /// handshake, naming the device and its socket; interrupted.
  Result<void> finish(std::vector<std::unique_ptr<DeviceBackend>>& backends);

  const std::vector<VhostUserRequest>& requests() const { return requests_; }
  /// What ends a wait for a back-end, since `connect`; may be null.
  const Fd* interrupt() const { return interrupt_; }

 private:
  std::vector<VhostUserRequest> requests_;
  std::vector<VhostUserBackend::Starting> starting_;
  const Fd* interrupt_ = nullptr;
};

}  // namespace crosvm
