#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "jail/sandbox_options.h"
#include "jail/spawner.h"
#include "jail/thread_filters.h"
#include "virtio/device_backend.h"
#include "virtio/device_factory.h"

namespace crosvm {

/// The device processes of one VM.
class Workers {
 public:
  /// A device has no process any more and gets no other: it was not to be started anew
  /// (SandboxOptions), or was too often. On the loop.
  using Died = std::function<void(const std::string& device, const std::string& cause)>;

  /// `loop` is the VMM's and outlives this, as does `interrupt`, which ends the waits of `finish`
  /// (wait_ready). Errors: those of watching the spawner, and of the options: a root that is none,
  /// a policy that cannot be compiled.
  static Result<std::unique_ptr<Workers>> create(EventLoop& loop, std::unique_ptr<Spawner> spawner,
                                                 SandboxOptions options, Died died,
                                                 const Fd* interrupt = nullptr);
  /// After the backends, with the loop at rest. Waits until every process is gone.
  ~Workers();

  /// Starts the process of a device, which takes the opened device's descriptors; does not wait
  /// for it. Returns what to call it here. Errors: those of its policy and of sending to the
  /// spawner.
  Result<uint32_t> start(const DeviceType& type, const std::string& name, const std::string& text,
                         OpenedDevice& opened);
  /// Waits until it serves its device. Once for each. Errors: what kept it from starting;
  /// interrupted.
  Result<std::unique_ptr<DeviceBackend>> finish(uint32_t worker);

  Spawner& spawner();
  /// For the VMM's own threads.
  const ThreadFilters& filters() const;

 private:
  struct State;
  explicit Workers(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
