#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "virtio/device_backend.h"
#include "virtio/device_factory.h"
#include "virtio/rig/rig_driver.h"
#include "virtio/rig/rig_memory.h"

namespace crosvm {

/// Where the device of a rig runs.
enum class RigPlace {
  kThread,  ///< LocalBackend, on a thread of its own
  kInline,  ///< on the calling thread, which turns the loop while it waits; deterministic
  kWorker,  ///< in a jailed process of its own, where the test program has said how (RunInWorker)
};

/// For the names of tests: "Thread", "Inline", "Process".
std::string name_of(RigPlace place);

struct RigOptions {
  RigPlace place = RigPlace::kThread;
  bool packed = false;  ///< if the device offers it
  bool event_idx = true;
  bool indirect = true;
  uint64_t refused_features = 0;  ///< bits not accepted although offered
  uint16_t max_queue_size = 256;  ///< queues are made no larger
  uint64_t high_ram_bytes = RigMemory::kRegionBytes;
  bool start = true;  ///< negotiate and start all queues at once
};

/// Runs an opened device of that type and configuration in a process.
using RunInWorker = Result<std::unique_ptr<DeviceBackend>> (*)(const DeviceType& type,
                                                               std::string_view text,
                                                               OpenedDevice& device);
/// For RigPlace::kWorker, once in `main`: rigs stand below whatever starts processes.
void set_run_in_worker(RunInWorker run);

/// A device, a driver for each of its queues, and the memory between them.
///
///     auto rig = make_rig<RngFactory>("");
///     rig.driver(0).send({writable(16)});
///     EXPECT_EQ(rig.driver(0).wait_used().written, 16u);
///
/// What the host cannot give (descriptors, threads) ends the test.
class Rig {
 public:
  using Millis = std::chrono::milliseconds;

  /// Runs an opened device, in this process. Errors: those of creating it.
  static Result<Rig> create(std::unique_ptr<OpenedDevice> device, const RigOptions& options = {});
  /// The same in any place; `text` is its configuration.
  static Result<Rig> create(const DeviceType& type, std::string_view text,
                            std::unique_ptr<OpenedDevice> device, const RigOptions& options = {});
  /// Drives a device that runs somewhere else; only `options.place` does not count.
  static Rig attach(std::unique_ptr<DeviceBackend> backend, const RigOptions& options = {});
  Rig(Rig&&) noexcept;
  Rig& operator=(Rig&&) noexcept;
  ~Rig();

  const DeviceInfo& info() const;
  RigDriver& driver(uint16_t queue);
  RigMemory& memory();
  DeviceBackend& backend();
  const RigOptions& options() const;
  /// The features that the driver accepts.
  uint64_t features() const;

  /// Negotiates, and starts every queue where its driver stands.
  void start();
  /// Resets the device, waits for it, and starts anew with empty rings.
  void reset();
  /// The reset alone: no queue runs then.
  void reset_and_stay();
  /// Stops one queue and returns where; everything in flight has come back.
  RingPosition stop_queue(uint16_t queue);
  /// Starts it again at `position`, with the requests that are in its ring.
  void start_queue(uint16_t queue, RingPosition position);
  /// Stops every queue, then starts each where it was.
  void restart();

  /// Whether the device said so since the last reset.
  bool needs_reset() const;
  /// Waits for that. Returns whether it came in time.
  bool wait_needs_reset(Millis timeout = RigDriver::kPatience);
  /// How often it said so, resets included.
  unsigned needs_reset_count() const;
  /// The device configuration as of its last change.
  std::vector<std::byte> config() const;
  unsigned config_changes() const;
  /// Waits for more changes than `seen`. Returns whether they came in time.
  bool wait_config_change(unsigned seen, Millis timeout = RigDriver::kPatience);
  void write_config(size_t offset, std::span<const std::byte> data);

  /// The loop of an inline device turns once; what is due runs, nothing is waited for. No effect on
  /// a device that runs elsewhere.
  void run_once();
  /// Turns the loop of an inline device until it has seen every kick and what that led to.
  void settle();

 private:
  struct State;
  explicit Rig(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Opens and runs the device that `text` configures. Errors: those of parsing, opening, creating.
template <DeviceFactory F>
Result<Rig> open_rig(std::string_view text, const RigOptions& options = {}) {
  return Rig::create(device_type<F>(), text, TRY(device_type<F>().open(text)), options);
}

/// The same for a text that is right: what fails ends the test.
Rig must_have_rig(Result<Rig> rig);
template <DeviceFactory F>
Rig make_rig(std::string_view text, const RigOptions& options = {}) {
  return must_have_rig(open_rig<F>(text, options));
}

}  // namespace crosvm
