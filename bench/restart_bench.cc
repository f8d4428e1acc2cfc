// restart_bench FILE KEYS KILLS: how long a disk stands still whose process is killed and started
// anew (--restart-devices=block). The disk is our block device with `path=FILE,KEYS` in a jailed
// process, under 4 KiB random reads, 32 of them in flight on one queue. Prints a line of the median
// and the longest time in milliseconds, from the kill to the first request that comes back after
// the process has ended.

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/format.h"
#include "base/log.h"
#include "bench/block_lane.h"
#include "devices/all_devices.h"
#include "devices/block/block_device.h"
#include "jail/rig/worker_host.h"
#include "jail/worker.h"

namespace crosvm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint16_t kDepth = 32;
constexpr auto kSteady = std::chrono::milliseconds(100);  // under load before each kill
constexpr int kPatienceMs = 60'000;
constexpr char kName[] = "block0";

/// A disk in a jailed process, and its driver.
class KilledDisk {
 public:
  static Result<std::unique_ptr<KilledDisk>> start(const std::string& file,
                                                   const std::string& keys) {
    std::unique_ptr<KilledDisk> self(new KilledDisk);
    // A VM has three restarts a minute.
    self->host_ =
        TRY(WorkerHost::create({.restart_devices = {"block"}, .restarts_a_minute = 1'000'000}));
    const std::string text = "path=" + file + (keys.empty() ? "" : "," + keys);
    auto backend = TRY(self->host_->run(kName, device_type<BlockFactory>(), text));
    self->host_->go();
    self->rig_.emplace(Rig::attach(std::move(backend)));
    const uint64_t bytes = TRY(file_size(TRY(open_path(file, O_RDONLY)), file));
    if (bytes < BlockLane::kBytes) return fail(Error::invalid(file + " is empty"));
    self->lane_.emplace(*self->rig_, uint16_t{0}, uint32_t{VIRTIO_BLK_T_IN}, kDepth,
                        bytes / BlockLane::kBytes);
    self->lane_->begin();
    return self;
  }
  ~KilledDisk() {
    while (lane_ && lane_->busy()) await(false);
    lane_.reset();
    rig_.reset();
  }
  KilledDisk(const KilledDisk&) = delete;
  KilledDisk& operator=(const KilledDisk&) = delete;

  void run_for(Clock::duration time) {
    for (const auto end = Clock::now() + time; Clock::now() < end;) await(true);
  }

  /// Milliseconds.
  Result<double> stall() {
    const pid_t pid = host_->process(kName);
    const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!process) return fail(Error::from_errno("getting a hold on", "the disk's process"));
    const auto killed = Clock::now();
    if (::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0) != 0) {
      return fail(Error::from_errno("killing", "the disk's process"));
    }
    while (!has_ended(process)) lane_->turn(true);
    lane_->turn(true);  // what it still gave back
    await(true);
    return std::chrono::duration<double, std::milli>(Clock::now() - killed).count();
  }

 private:
  KilledDisk() = default;

  static bool has_ended(const Fd& process) {
    pollfd end{.fd = process.get(), .events = POLLIN, .revents = 0};
    return ::poll(&end, 1, 1) == 1;
  }

  /// Sleeps until at least one request is back.
  void await(bool more) {
    while (lane_->turn(more) == 0) {
      lane_->ask_for_interrupt();
      if (lane_->turn(more) != 0) return;  // between the question and the wait
      pollfd call{.fd = lane_->call().get(), .events = POLLIN, .revents = 0};
      CHECK(::poll(&call, 1, kPatienceMs) > 0);
      drain_eventfd(lane_->call());
    }
  }

  std::unique_ptr<WorkerHost> host_;
  std::optional<Rig> rig_;
  std::optional<BlockLane> lane_;
};

Result<void> bench(const std::string& file, const std::string& keys, size_t kills) {
  auto disk = TRY(KilledDisk::start(file, keys));
  std::vector<double> stalls;
  while (stalls.size() < kills) {
    disk->run_for(kSteady);
    stalls.push_back(TRY(disk->stall()));
  }
  std::ranges::sort(stalls);
  std::puts(format_text("{:.2f}\t{:.2f}", stalls[stalls.size() / 2], stalls.back()).c_str());
  return {};
}

}  // namespace
}  // namespace crosvm

int main(int count, char** arguments) {
  using namespace crosvm;
  if (is_worker(count, arguments)) return worker_main(find_device);
  size_t kills = 0;
  if (count == 4) std::from_chars(arguments[3], arguments[3] + std::strlen(arguments[3]), kills);
  if (kills == 0) {
    std::fprintf(stderr, "usage: restart_bench FILE KEYS KILLS\n");
    return 2;
  }
  (void)log::configure({.filter = "off", .use_syslog = false});  // each end of the process is told
  auto done = bench(arguments[1], arguments[2], kills);
  if (!done) std::fprintf(stderr, "restart_bench: %s\n", done.error().what().c_str());
  return done ? 0 : 1;
}
