#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "jail/sandbox_options.h"
#include "jail/seccomp_filter.h"
#include "jail/spawner.h"
#include "virtio/device_factory.h"

namespace crosvm {

/// Device processes that serve the front-ends of other programs: as those of Workers, but nobody
/// here speaks with the device, and what becomes of a process is only logged.
class JailedServices {
 public:
  /// On the loop; why is logged.
  struct Events {
    /// A process without a front-end has its device, and takes one now. May be empty.
    std::function<void(const std::string& name)> ready{};
    /// Once for each process that was started, when it has ended. `served`: it got as far as
    /// serving its front-end, or ended in good order before that.
    std::function<void(const std::string& name, bool served)> ended;
    std::function<void()> lost;  ///< with the spawner; none can be started any more
  };

  /// `loop` outlives this. Errors: those of watching the spawner and of check_sandbox_options.
  static Result<std::unique_ptr<JailedServices>> create(EventLoop& loop,
                                                        std::unique_ptr<Spawner> spawner,
                                                        SandboxOptions options, Events events);
  /// Lets go of the processes, and waits until every one is gone.
  ~JailedServices();

  /// The system call policy of a device that serves a front-end of its own:
  /// "block_device_vhost_user".
  static std::string policy_of(const DeviceType& type);
  /// Whether there is such a policy. Errors: those of find_worker_policy.
  Result<void> check_policy(const DeviceType& type) const;

  /// Starts a process that serves `frontend`, a connected stream socket, with the opened device;
  /// does not wait for it. Without `frontend` it makes its device, which finds out whether an image
  /// can be served, and waits for `give_frontend`. Errors: those of its policy and of sending to
  /// the spawner.
  Result<void> start(const DeviceType& type, const std::string& name, const std::string& text,
                     OpenedDevice& opened, Fd frontend);

  /// For the process `name`, which is ready and has none. Errors: it takes none, as it has ended.
  Result<void> give_frontend(const std::string& name, Fd frontend);

  /// As those of Spawner.
  Result<void> guard_socket(const std::string& path);
  Result<void> guard_terminal();

 private:
  struct State;
  explicit JailedServices(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
