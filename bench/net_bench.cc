// net_bench [--load TEXT] TARGET...: Ethernet frames through network cards on taps, in turns. A
// target is `vhost=SOCKET,pid=N,tap=NAME`, a card with 4 queue pairs that process N and its
// children serve by vhost-user; `tap=NAME`, such a card on threads of this process; or `bare=NAME`,
// a tap that this process reads and writes by itself, a frame in each system call: what there is to
// gain. The taps are there, up, with 4 queues, an MTU of 65521 and no IPv6 of their own.
//
// Prints for each load and target a line of tab-separated fields: the load; the bytes of a frame;
// the target, counted from 0; its frames (round trips, of an echo) a second; its CPU time a frame
// in µs, 0 if it is not known; then how many times the target's rate that of target 0 is, with the
// lower and the upper quartile. All are medians of the rounds.

#include <poll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/format.h"
#include "base/key_value.h"
#include "base/log.h"
#include "bench/arguments.h"
#include "bench/net_lane.h"
#include "bench/net_wire.h"
#include "bench/processes.h"
#include "bench/statistics.h"
#include "bench/vhost_user_client.h"
#include "devices/net/net_device.h"

namespace crosvm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint16_t kPairs = 4;
constexpr int kRounds = 11;
constexpr auto kRound = std::chrono::milliseconds(150);
/// After so long a frame is lost that was sent into a tap.
constexpr int kLostMs = 200;

enum class Way { kSend, kReceive, kEcho };

struct Load {
  const char* name;
  Way way;
  uint32_t bytes;  // of a frame
  uint16_t pairs;  // of the guest's queues
  uint16_t depth;  // frames on their way, of each queue
};
constexpr std::array<Load, 11> kLoads = {
    {{"echo, 60 bytes", Way::kEcho, 60, 1, 1},
     {"to the host, 60 bytes", Way::kSend, 60, 1, 256},
     {"to the host, 1514 bytes", Way::kSend, 1514, 1, 256},
     {"to the host, 65000 bytes", Way::kSend, 65000, 1, 32},
     {"to the host, 60 bytes, 4 pairs", Way::kSend, 60, 4, 256},
     {"to the host, 1514 bytes, 4 pairs", Way::kSend, 1514, 4, 256},
     {"to the guest, 60 bytes", Way::kReceive, 60, 1, 192},
     {"to the guest, 1514 bytes", Way::kReceive, 1514, 1, 192},
     {"to the guest, 65000 bytes", Way::kReceive, 65000, 1, 12},
     {"to the guest, 60 bytes, 4 pairs", Way::kReceive, 60, 4, 192},
     {"to the guest, 1514 bytes, 4 pairs", Way::kReceive, 1514, 4, 192}}};

/// One of those that are compared.
class Target {
 public:
  virtual ~Target() = default;
  /// Frames that went through until `deadline`, and the last ones after it.
  virtual uint64_t run(const Load& load, Clock::time_point deadline) = 0;
  /// CPU time so far, of all but who plays driver and host; 0: it is not known.
  virtual double cpu_ms() const = 0;

  std::vector<double> rates = {};
  std::vector<double> cpu_us = {};
};

// ---- a card

using Lanes = std::vector<std::unique_ptr<NetLane>>;

void wait_for_interrupt(const Lanes& lanes, int timeout_ms) {
  std::vector<pollfd> waited;
  for (const auto& lane : lanes) waited.push_back({lane->call().get(), POLLIN, 0});
  (void)::poll(waited.data(), waited.size(), timeout_ms);
  for (size_t i = 0; i < lanes.size(); ++i) {
    if (waited[i].revents != 0) drain_eventfd(lanes[i]->call());
  }
}

uint64_t turn_all(const Lanes& lanes, bool more) {
  uint64_t frames = 0;
  for (const auto& lane : lanes) frames += lane->turn(more);
  return frames;
}

/// What came back; waits for it if there is nothing.
uint64_t take(const Lanes& lanes, bool more, int timeout_ms) {
  if (const uint64_t now = turn_all(lanes, more); now > 0) return now;
  for (const auto& lane : lanes) lane->ask_for_interrupt();
  // None may have come between the question and the wait.
  if (const uint64_t now = turn_all(lanes, more); now > 0) return now;
  wait_for_interrupt(lanes, timeout_ms);
  return turn_all(lanes, more);
}

class CardTarget : public Target {
 public:
  CardTarget(Rig rig, pid_t pid, const std::string& tap)
      : rig_(std::move(rig)), pid_(pid), tap_(tap), wire_(tap) {}

  uint64_t run(const Load& load, Clock::time_point deadline) override {
    rig_.reset();
    use_pairs(load.pairs);
    wire_.set_frames(load.bytes);
    switch (load.way) {
      case Way::kSend:
        return send(load, deadline);
      case Way::kReceive:
        return receive(load, deadline);
      case Way::kEcho:
        return echo(load, deadline);
    }
    return 0;
  }
  double cpu_ms() const override {
    if (pid_ == 0) return 0;
    double sum = 0;
    for (pid_t each : process_family(pid_)) sum += crosvm::cpu_ms(each);
    return sum;
  }

 private:
  void use_pairs(uint16_t pairs) {
    RigDriver& control = rig_.driver(2 * kPairs);
    control.send(
        {readable(std::array<uint8_t, 2>{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET}),
         readable(pairs), writable(1)});
    CHECK(control.wait_used().last_byte() == VIRTIO_NET_OK);
  }
  Lanes receivers(const Load& load) {
    Lanes lanes;
    for (uint16_t pair = 0; pair < load.pairs; ++pair) {
      lanes.push_back(std::make_unique<NetLane>(
          NetLane::receive(rig_, static_cast<uint16_t>(2 * pair), 256, load.bytes)));
      lanes.back()->begin();
    }
    return lanes;
  }

  uint64_t send(const Load& load, Clock::time_point deadline) {
    Lanes lanes;
    for (uint16_t pair = 0; pair < load.pairs; ++pair) {
      lanes.push_back(std::make_unique<NetLane>(NetLane::transmit(
          rig_, static_cast<uint16_t>(2 * pair + 1), load.depth, net_frame(load.bytes, pair))));
      lanes.back()->begin();
    }
    uint64_t sent = 0;
    const auto busy = [](const auto& lane) { return lane->busy(); };
    while (std::ranges::any_of(lanes, busy)) sent += take(lanes, Clock::now() < deadline, 10'000);
    return sent;
  }

  uint64_t receive(const Load& load, Clock::time_point deadline) {
    const Lanes lanes = receivers(load);
    const size_t window = size_t{load.depth} * load.pairs;
    uint64_t received = 0;
    size_t on_the_way = 0;
    while (true) {
      const bool more = Clock::now() < deadline;
      if (more) on_the_way += wire_.send(window - on_the_way);
      if (on_the_way == 0 && !more) return received;
      const uint64_t now = take(lanes, true, kLostMs);
      received += now;
      on_the_way = now == 0 ? 0 : on_the_way - std::min<size_t>(on_the_way, now);
    }
  }

  uint64_t echo(const Load& load, Clock::time_point deadline) {
    const Lanes receiving = receivers(load);
    NetLane back = NetLane::transmit(rig_, 1, 1, net_frame(load.bytes, 0));
    const NetListener host(tap_);
    uint64_t echoes = 0;
    while (Clock::now() < deadline) {
      if (wire_.send(1) == 0 || take(receiving, true, kLostMs) == 0) continue;
      back.turn(false);
      if (!back.busy()) back.begin();
      if (host.next(kLostMs)) ++echoes;
    }
    return echoes;
  }

  Rig rig_;
  pid_t pid_;  // 0: of this process
  std::string tap_;
  NetWire wire_;
};

// ---- a tap alone

/// Packets as a tap has them: a header that says nothing, and the frame.
class BareTarget : public Target {
 public:
  explicit BareTarget(const std::string& tap)
      : queues_(open_bare_tap(tap, 1)), tap_(tap), wire_(tap), packet_(70'000) {}

  uint64_t run(const Load& load, Clock::time_point deadline) override {
    packet_.assign(kNetHeaderBytes, std::byte{0});
    const auto frame = net_frame(load.bytes, 0);
    packet_.insert(packet_.end(), frame.begin(), frame.end());
    wire_.set_frames(load.bytes);
    if (load.way == Way::kEcho) return echo(deadline);
    uint64_t frames = 0;
    while (Clock::now() < deadline) {
      for (int i = 0; load.way == Way::kSend && i < 32; ++i) frames += write_one();
      if (load.way != Way::kReceive) continue;
      size_t sent = wire_.send(load.depth);
      while (sent-- > 0 && read_one(kLostMs)) ++frames;
    }
    return frames;
  }
  double cpu_ms() const override { return 0; }

 private:
  bool write_one() {
    return ::write(queues_[0].get(), packet_.data(), packet_.size()) ==
           static_cast<ssize_t>(packet_.size());
  }
  bool read_one(int timeout_ms) {
    if (::read(queues_[0].get(), packet_.data(), packet_.size()) > 0) return true;
    pollfd waiting{.fd = queues_[0].get(), .events = POLLIN, .revents = 0};
    return ::poll(&waiting, 1, timeout_ms) > 0 &&
           ::read(queues_[0].get(), packet_.data(), packet_.size()) > 0;
  }
  uint64_t echo(Clock::time_point deadline) {
    const NetListener host(tap_);
    std::atomic<bool> over = false;
    std::thread guest([&] {
      while (!over) {
        if (read_one(20)) write_one();
      }
    });
    uint64_t echoes = 0;
    while (Clock::now() < deadline) {
      if (wire_.send(1) == 1 && host.next(kLostMs)) ++echoes;
    }
    over = true;
    guest.join();
    return echoes;
  }

  std::vector<Fd> queues_;
  std::string tap_;
  NetWire wire_;
  std::vector<std::byte> packet_;
};

// ---- all of them

void run(Target& target, const Load& load) {
  const double cpu_before = target.cpu_ms();
  const auto start = Clock::now();
  const auto frames = static_cast<double>(target.run(load, start + kRound));
  target.rates.push_back(frames / std::chrono::duration<double>(Clock::now() - start).count());
  target.cpu_us.push_back((target.cpu_ms() - cpu_before) * 1e3 / std::max(frames, 1.0));
}

void compare(const std::vector<std::unique_ptr<Target>>& targets, const Load& load) {
  for (const auto& target : targets) {
    target->rates.clear();
    target->cpu_us.clear();
  }
  for (int round = 0; round < kRounds; ++round) {
    for (const auto& target : targets) run(*target, load);
  }
  for (size_t i = 0; i < targets.size(); ++i) {
    const auto rates = ratios(targets[0]->rates, targets[i]->rates);
    std::puts(format_text("{}\t{}\t{}\t{:.0f}\t{:.2f}\t{:.2f}\t{:.2f}\t{:.2f}", load.name,
                          load.bytes, i, median(targets[i]->rates), median(targets[i]->cpu_us),
                          median(rates), quantile(rates, 0.25), quantile(rates, 0.75))
                  .c_str());
  }
  std::fflush(stdout);
}

Result<std::unique_ptr<Target>> open_target(std::string_view text) {
  std::string bare;
  std::string tap;
  std::string socket;
  int pid = 0;
  TRY(read_key_values(text, {kv_key("bare", bare), kv_key("tap", tap), kv_key("vhost", socket),
                             kv_key("pid", pid)}));
  if (!bare.empty()) return std::make_unique<BareTarget>(bare);
  if (!socket.empty()) {
    auto card = VhostUserClient::connect(socket, 2 * kPairs + 1);
    return std::make_unique<CardTarget>(Rig::attach(std::move(card)), pid, tap);
  }
  const NetConfig config{.network = tap, .mac = {2, 0, 0, 0, 0, 0xee}, .vq_pairs = kPairs};
  return std::make_unique<CardTarget>(TRY(open_rig<NetFactory>(config.to_text())), 0, tap);
}

Result<void> bench(const BenchArguments& arguments) {
  std::vector<std::unique_ptr<Target>> targets;
  for (const char* name : arguments.rest) targets.push_back(TRY(open_target(name)));
  for (const Load& load : kLoads) {
    if (arguments.wants(load.name)) compare(targets, load);
  }
  return {};
}

}  // namespace
}  // namespace crosvm

int main(int count, char** words) {
  using namespace crosvm;
  const BenchArguments arguments(count, words);
  if (arguments.rest.empty()) {
    std::fprintf(stderr, "usage: net_bench [--load TEXT] TARGET...\n");
    return 2;
  }
  (void)log::configure({.filter = "info", .use_syslog = false});
  auto done = bench(arguments);
  if (!done) log::error("{}", done.error().what());
  return done ? 0 : 1;
}
