#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "jail/sandbox_options.h"
#include "jail/workers.h"
#include "virtio/device_backend.h"
#include "virtio/device_factory.h"

namespace crosvm {

/// What a VMM has of device processes, for tests: a spawner, the processes, and the loop of their
/// backends on a thread of its own.
///
///     auto host = *WorkerHost::create({.restart_devices = {"block"}});
///     Rig rig = Rig::attach(*host->run("block0", device_type<BlockFactory>(), "path=disk"));
///     ::kill(host->process("block0"), SIGKILL);
class WorkerHost {
 public:
  /// Starts the spawner. The caller should have one thread.
  static Result<std::unique_ptr<WorkerHost>> create(SandboxOptions options = {});
  /// After the backends. Every process has gone when this returns.
  ~WorkerHost();
  WorkerHost(const WorkerHost&) = delete;
  WorkerHost& operator=(const WorkerHost&) = delete;

  /// Runs a device in a process of its own. Before `go`.
  Result<std::unique_ptr<DeviceBackend>> run(const std::string& name, const DeviceType& type,
                                             const std::string& text);
  Result<std::unique_ptr<DeviceBackend>> run(const std::string& name, const DeviceType& type,
                                             const std::string& text, OpenedDevice& device);
  /// The loop begins to run; without it nothing happens to any device.
  void go();

  pid_t spawner() const { return spawner_; }
  /// The present processes, those that are starting too.
  std::vector<pid_t> processes() const;
  /// The present process of that name whose jail is complete; 0: there is none.
  pid_t process(std::string_view name) const;
  /// Waits for one other than `former`. 0: none came.
  pid_t wait_process(std::string_view name, pid_t former) const;
  /// What Workers::Died was called with: "block0: was killed by SIGKILL".
  std::vector<std::string> deaths() const;
  /// Waits until there is one. Returns whether it came in time.
  bool wait_death() const;

 private:
  WorkerHost() = default;

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Workers> workers_;
  pid_t spawner_ = 0;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::vector<std::string> deaths_;  // guarded by mutex_
};

/// For set_run_in_worker: each device gets a WorkerHost of its own.
Result<std::unique_ptr<DeviceBackend>> run_in_own_worker(const DeviceType& type,
                                                         std::string_view text,
                                                         OpenedDevice& device);

}  // namespace crosvm
