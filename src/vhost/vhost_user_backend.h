#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "vhost/loop_backend.h"
#include "virtio/shared_memory.h"

namespace crosvm {

/// What follows when a vhost-user back-end is gone.
enum class AfterLoss {
  kGiveUp,        ///< whoever waits is told, and the driver: DEVICE_NEEDS_RESET
  kAwaitAnother,  ///< `reconnect` or `give_up` comes; until then whoever waits waits on
  kGoOnWithout,   ///< likewise, perhaps late or never: nobody waits, nothing is in flight
};

/// The configuration of a device that we show and its back-end knows nothing of.
struct OwnDeviceConfig {
  uint64_t features = 0;           ///< what a driver is offered for its sake; not told to back-ends
  std::vector<std::byte> present;  ///< while there is a back-end
  std::vector<std::byte> absent;   ///< while there is none; of the same size
};

struct VhostUserOptions {
  std::string name{};        ///< names the device in logs: "block0"
  uint32_t device_type = 0;  ///< virtio 1.3 §5
  /// The largest size of each queue, when it is known; else the back-end tells how many queues
  /// there are, or there are as few as the type allows, of `max_queue_size` each.
  std::vector<uint16_t> queue_sizes{};
  /// A power of two up to 32768.
  uint16_t max_queue_size = 32768;
  /// Bytes of device configuration, when it is known; else as the type has.
  std::optional<size_t> config_length{};
  /// None: it is asked of the back-end, which tells it or has none.
  std::optional<OwnDeviceConfig> own_config{};
  /// Features that a driver is not offered, whatever the back-end can do. Of a network device also
  /// the control queue and all that needs it, when the back-end has no PROTOCOL_F_CONFIG: it leaves
  /// those to its front-end.
  uint64_t hidden_features = 0;
  /// Network devices: the MTU that a back-end is told which offers it to its driver.
  std::optional<uint16_t> mtu{};
  /// Shows the device's shared memory to its driver (SHMEM), for which the sizes are in the
  /// DeviceInfo; outlives the backend. Called on the loop, and unmaps what is left on the thread
  /// that ends the backend; neither may end the backend. None: the device does without.
  SharedMemoryListener* shared_memory = nullptr;
  /// How long a back-end may be silent that owes an answer.
  std::chrono::milliseconds patience{10'000};
  /// The same while a ring stops: its requests must end first, which takes as long as a disk does.
  std::chrono::milliseconds stop_patience{120'000};
  /// Called on the loop when the back-end is gone, with the cause, which has been logged. It must
  /// not end the VhostUserBackend. None: kGiveUp.
  std::function<AfterLoss(const Error& cause)> disconnected{};
  /// Takes a DeviceCommand to a back-end of ours, by a way that is not vhost-user's. On the loop;
  /// it must not end the VhostUserBackend. None: the back-end is another program's, which knows
  /// none.
  std::function<void(DeviceCommand, CommandDone)> command{};
};

class VhostUserDevice;

/// A device behind a vhost-user socket (devices.md 10.5), in a worker of ours or in anybody's
/// back-end.
///
/// The messages go out on the VMM's control loop, and no verb waits for the peer. The peer is not
/// trusted: what it sends is bounded and checked, and when it breaks the protocol, closes the
/// connection or is silent too long, it counts as gone. It never learns where guest memory lies in
/// our address space.
class VhostUserBackend : public LoopBackend {
 public:
  /// A handshake under way, so that those of several back-ends go on at the same time.
  class Starting {
   public:
    Starting(Starting&&) noexcept;
    Starting& operator=(Starting&&) noexcept;
    ~Starting();
    /// Waits for the handshake's end. Errors: timed_out, bad_message or the errno of the socket
    /// naming the device; not_supported for a legacy back-end; invalid_argument when it has fewer
    /// queues than it should, or more than can be; interrupted by `interrupt` (wait_ready).
    Result<std::unique_ptr<VhostUserBackend>> finish(const Fd* interrupt = nullptr);

   private:
    friend class VhostUserBackend;
    explicit Starting(std::shared_ptr<VhostUserDevice> device);
    std::shared_ptr<VhostUserDevice> device_;
  };

  /// Sends the first requests. `socket` is a connected stream socket; `loop` outlives the backend,
  /// and need not run yet. Errors: the errno of the socket, naming the device.
  static Result<Starting> start(EventLoop& loop, Fd socket, VhostUserOptions options);
  /// Both steps.
  static Result<std::unique_ptr<VhostUserBackend>> create(EventLoop& loop, Fd socket,
                                                          VhostUserOptions options,
                                                          const Fd* interrupt = nullptr);

  /// Takes another back-end of the same device in the place of one that is gone, after
  /// kAwaitAnother or kGoOnWithout. All that the driver has set up is told to it, and the rings go
  /// on where they were. With INFLIGHT_SHMFD each request that was in flight is executed once more;
  /// without it a split ring goes on behind the last request that came back, which loses none if
  /// the back-end takes them in order, and a packed ring needs a reset. `done` is called on the
  /// loop. Errors: those of `create`, and not_supported naming the features that it lacks. After an
  /// error another may be tried. From any thread.
  void reconnect(Fd socket, std::function<void(Result<void>)> done) {
    remote().reconnect(std::move(socket), std::move(done));
  }
  /// There will be no other. From any thread.
  void give_up() { remote().give_up(); }

  /// Has the back-end note in `log`, a file of `bytes` bytes, the pages of the guest that it writes
  /// to: one bit for each 4096 bytes from guest address 0 on, to be read and cleared atomically
  /// ("Migration"). `done` is called on the loop when every write from then on will be in it; the
  /// back-end that takes over after a loss goes on with it. Errors: not_supported when the back-end
  /// does not log, invalid_argument when it refuses, not_connected. From any thread.
  void start_dirty_log(Fd log, uint64_t bytes, std::function<void(Result<void>)> done);
  /// Ends that. `done` is called when nothing is written to the log any more.
  void stop_dirty_log(std::function<void(Result<void>)> done);

  /// The state that the back-end keeps beyond what a driver sees ("Migrating back-end state"), for
  /// `load_state` of another back-end of the same kind; the two are called with every ring stopped.
  /// `done` is called on the loop. Errors: not_supported when the back-end hands over none,
  /// invalid_argument when a ring runs or the back-end refuses, message_size, timed_out,
  /// not_connected. From any thread, one at a time.
  void save_state(std::function<void(Result<std::vector<std::byte>>)> done);
  void load_state(std::vector<std::byte> state, std::function<void(Result<void>)> done);

  void command(DeviceCommand command, CommandDone done) override;

  /// A hold on the backend for whoever gives it other back-ends; may outlive it, and does nothing
  /// then.
  class Remote {
   public:
    Remote() = default;
    /// Whether the backend is still there.
    bool alive() const;
    // As those of the backend.
    void reconnect(Fd socket, std::function<void(Result<void>)> done) const;
    void give_up() const;

   private:
    friend class VhostUserBackend;
    explicit Remote(std::weak_ptr<VhostUserDevice> device) : device_(std::move(device)) {}
    void post(std::function<void(VhostUserDevice&)> call) const;
    std::weak_ptr<VhostUserDevice> device_;
  };
  Remote remote() const { return Remote(peer_); }

 private:
  explicit VhostUserBackend(std::shared_ptr<VhostUserDevice> device);
  std::shared_ptr<VhostUserDevice> peer_;
};

}  // namespace crosvm
