// block_bench FILE SOCKET KEYS [OURS]: 4 KiB at random places of a disk, served by our block device
// with `path=FILE,KEYS` in this process, or by the one at the vhost-user socket OURS, and by the
// peer's vhost-user back-end at SOCKET, in turns. Prints for each load a line
// of its name, our requests a second, the peer's, and how many times the peer's ours are; each the
// median of the rounds.

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/format.h"
#include "base/log.h"
#include "bench/block_lane.h"
#include "bench/vhost_user_client.h"
#include "devices/block/block_device.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint16_t kQueues = 4;
constexpr int kRounds = 5;
constexpr auto kRound = std::chrono::milliseconds(400);

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

/// Requests a second.
double run(Rig& rig, const Load& load, uint64_t blocks) {
  std::vector<std::unique_ptr<BlockLane>> lanes;
  for (uint16_t i = 0; i < load.queues; ++i) {
    lanes.push_back(std::make_unique<BlockLane>(rig, i, load.type, load.depth, blocks));
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
  return static_cast<double>(ended) / std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

void compare(Rig& ours, Rig& peer, const Load& load, uint64_t blocks) {
  std::vector<double> our_rates;
  std::vector<double> peer_rates;
  std::vector<double> ratios;
  for (int round = 0; round < kRounds; ++round) {
    our_rates.push_back(run(ours, load, blocks));
    peer_rates.push_back(run(peer, load, blocks));
    ratios.push_back(our_rates.back() / peer_rates.back());
  }
  std::puts(format_text("{}\t{:.0f}\t{:.0f}\t{:.2f}", load.name, median(our_rates),
                        median(peer_rates), median(ratios))
                .c_str());
  std::fflush(stdout);
}

Result<Rig> our_device(const std::string& file, const std::string& keys, const char* socket) {
  if (socket) return Rig::attach(VhostUserClient::connect(socket, kQueues));
  return open_rig<BlockFactory>("path=" + file + (keys.empty() ? "" : "," + keys));
}

Result<void> bench(const std::string& file, const std::string& socket, const std::string& keys,
                   const char* our_socket) {
  Rig ours = TRY(our_device(file, keys, our_socket));
  Rig peer = Rig::attach(VhostUserClient::connect(socket, kQueues));
  uint64_t blocks = TRY(file_size(TRY(open_path(file, O_RDONLY)), file)) / BlockLane::kBytes;
  if (blocks == 0) return fail(Error::invalid(file + " is empty"));
  for (const Load& load : kLoads) compare(ours, peer, load, blocks);
  return {};
}

}  // namespace
}  // namespace crosvm

int main(int count, char** arguments) {
  using namespace crosvm;
  if (count != 4 && count != 5) {
    std::fprintf(stderr, "usage: block_bench FILE SOCKET KEYS [OURS]\n");
    return 2;
  }
  (void)log::configure({.filter = "info", .use_syslog = false});
  auto done = bench(arguments[1], arguments[2], arguments[3], arguments[4]);
  if (!done) log::error("{}", done.error().what());
  return done ? 0 : 1;
}
