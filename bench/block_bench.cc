// block_bench [--load TEXT] MIB TARGET TARGET...: 4 KiB at random places of the first MIB mebibytes
// of a disk that several back-ends serve, in turns. A target is `vhost=SOCKET,pid=N`, a vhost-user
// back-end in process N and its children, or else keys of --block for our device on a thread of
// this process. Prints for each load and target a line of tab-separated fields: the load; the
// target, counted from 0; its requests a second; its CPU time a request in µs; then how many times
// the target's rate that of target 0 is, with the lower and the upper quartile, and how many times
// its CPU time. All are medians of the rounds.

#include <linux/virtio_blk.h>
#include <poll.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/format.h"
#include "base/log.h"
#include "bench/arguments.h"
#include "bench/block_lane.h"
#include "bench/processes.h"
#include "bench/statistics.h"
#include "bench/vhost_user_client.h"
#include "devices/block/block_device.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint16_t kQueues = 4;
constexpr int kRounds = 13;
constexpr auto kRound = std::chrono::milliseconds(150);

struct Load {
  const char* name;
  uint32_t type;
  uint16_t queues;
  uint16_t depth;  // of each queue
};
constexpr std::array<Load, 8> kLoads = {{{"read, QD1", VIRTIO_BLK_T_IN, 1, 1},
                                         {"read, QD32", VIRTIO_BLK_T_IN, 1, 32},
                                         {"read, 4 queues, QD1", VIRTIO_BLK_T_IN, 4, 1},
                                         {"read, 4 queues, QD32", VIRTIO_BLK_T_IN, 4, 32},
                                         {"write, QD1", VIRTIO_BLK_T_OUT, 1, 1},
                                         {"write, QD32", VIRTIO_BLK_T_OUT, 1, 32},
                                         {"write, 4 queues, QD1", VIRTIO_BLK_T_OUT, 4, 1},
                                         {"write, 4 queues, QD32", VIRTIO_BLK_T_OUT, 4, 32}}};

void wait_for_interrupt(std::vector<std::unique_ptr<BlockLane>>& lanes) {
  std::vector<pollfd> waited;
  for (auto& lane : lanes) waited.push_back({lane->call().get(), POLLIN, 0});
  CHECK(::poll(waited.data(), waited.size(), 10'000) > 0);
  for (size_t i = 0; i < lanes.size(); ++i) {
    if (waited[i].revents != 0) drain_eventfd(lanes[i]->call());
  }
}

/// One of those that are compared.
struct Target {
  Rig rig;
  pid_t pid = 0;  // 0: a thread of this process
  std::vector<double> rates = {};
  std::vector<double> cpu_us = {};

  /// CPU time so far, of all but the driver.
  double cpu_so_far_ms() const {
    if (pid == 0) return cpu_ms(::getpid()) - thread_ms();
    double sum = 0;
    for (pid_t each : process_family(pid)) sum += cpu_ms(each);
    return sum;
  }

 private:
  static double thread_ms() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
  }
};

/// One round of one target.
void run(Target& target, const Load& load, uint64_t blocks) {
  std::vector<std::unique_ptr<BlockLane>> lanes;
  const double cpu_before = target.cpu_so_far_ms();
  for (uint16_t i = 0; i < load.queues; ++i) {
    lanes.push_back(std::make_unique<BlockLane>(target.rig, i, load.type, load.depth, blocks));
    lanes.back()->begin();
  }
  uint64_t ended = 0;
  auto start = Clock::now();
  auto turn = [&](bool more) {
    uint64_t now = 0;
    for (auto& lane : lanes) now += lane->turn(more);
    ended += now;
    return now > 0;
  };
  auto busy = [](const auto& lane) { return lane->busy(); };
  while (std::ranges::any_of(lanes, busy)) {
    bool more = Clock::now() - start < kRound;
    if (turn(more)) continue;
    for (auto& lane : lanes) lane->ask_for_interrupt();
    if (!turn(more)) wait_for_interrupt(lanes);  // none came between the question and the wait
  }
  const auto count = static_cast<double>(ended);
  target.rates.push_back(count / std::chrono::duration<double>(Clock::now() - start).count());
  target.cpu_us.push_back((target.cpu_so_far_ms() - cpu_before) * 1e3 / count);
}

void compare(std::vector<Target>& targets, const Load& load, uint64_t blocks) {
  for (Target& target : targets) {
    target.rates.clear();
    target.cpu_us.clear();
  }
  for (int round = 0; round < kRounds; ++round) {
    for (Target& target : targets) run(target, load, blocks);
  }
  for (size_t i = 0; i < targets.size(); ++i) {
    const auto rates = ratios(targets[0].rates, targets[i].rates);
    const auto cpu = ratios(targets[0].cpu_us, targets[i].cpu_us);
    std::puts(format_text("{}\t{}\t{:.0f}\t{:.2f}\t{:.2f}\t{:.2f}\t{:.2f}\t{:.2f}", load.name, i,
                          median(targets[i].rates), median(targets[i].cpu_us), median(rates),
                          quantile(rates, 0.25), quantile(rates, 0.75), median(cpu))
                  .c_str());
  }
  std::fflush(stdout);
}

Result<Target> open_target(std::string_view text) {
  constexpr std::string_view kVhost = "vhost=";
  constexpr std::string_view kPid = ",pid=";
  if (!text.starts_with(kVhost)) return Target{.rig = TRY(open_rig<BlockFactory>(text))};
  text.remove_prefix(kVhost.size());
  const size_t end = text.find(kPid);
  if (end == text.npos) return fail(Error::invalid("a vhost target without its pid"));
  Rig rig = Rig::attach(VhostUserClient::connect(std::string(text.substr(0, end)), kQueues));
  return Target{.rig = std::move(rig),
                .pid = std::atoi(std::string(text.substr(end + kPid.size())).c_str())};
}

Result<void> bench(uint64_t mebibytes, const BenchArguments& arguments) {
  std::vector<Target> targets;
  for (const char* name : arguments.rest.subspan(1)) targets.push_back(TRY(open_target(name)));
  for (const Load& load : kLoads) {
    if (arguments.wants(load.name)) compare(targets, load, (mebibytes << 20) / BlockLane::kBytes);
  }
  return {};
}

}  // namespace
}  // namespace crosvm

int main(int count, char** words) {
  using namespace crosvm;
  const BenchArguments arguments(count, words);
  const int mebibytes = arguments.rest.size() < 3 ? 0 : std::atoi(arguments.rest[0]);
  if (mebibytes <= 0) {
    std::fprintf(stderr, "usage: block_bench [--load TEXT] MIB TARGET TARGET...\n");
    return 2;
  }
  (void)log::configure({.filter = "info", .use_syslog = false});
  auto done = bench(static_cast<uint64_t>(mebibytes), arguments);
  if (!done) log::error("{}", done.error().what());
  return done ? 0 : 1;
}
