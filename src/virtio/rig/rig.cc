#include "virtio/rig/rig.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "base/event_loop.h"
#include "base/log.h"
#include "virtio/local_backend.h"
#include "virtio/rig/inline_backend.h"
#include "virtio/ring.h"

namespace crosvm {
namespace {

using Clock = RigWaiter::Clock;

constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }

int milliseconds_until(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1000));
}

RunInWorker run_in_worker = nullptr;

Fd make_event() {
  auto event = make_eventfd();
  CHECK(event.has_value());
  return std::move(*event);
}

}  // namespace

struct Rig::State : public RigWaiter, public BackendListener {
  State(const RigOptions& wanted) : options(wanted), memory(wanted.high_ram_bytes) {}
  ~State() override {
    if (backend) backend->set_listener(nullptr);
  }

  // BackendListener: on any thread.
  void config_changed(std::vector<std::byte> new_config) override {
    std::lock_guard lock(mutex);
    config = std::move(new_config);
    ++config_changes;
    signal_eventfd(news);
  }
  void needs_reset() override {
    ++needs_reset_count;
    is_broken = true;
    signal_eventfd(news);
  }

  // RigWaiter: on the test's thread.
  void wait(const Fd& readable, Clock::time_point deadline) override;
  bool broken() const override { return is_broken; }
  template <class Condition>
  bool wait_until(Condition condition, Millis timeout);

  uint64_t accepted() const;
  void make_drivers();
  void configure(uint16_t queue, RingPosition position);

  RigOptions options;
  RigMemory memory;
  std::unique_ptr<EventLoop> loop;  // of an inline device
  Fd news = make_event();
  mutable std::mutex mutex;
  std::vector<std::byte> config;  // guarded by mutex, as is:
  unsigned config_changes = 0;
  std::atomic<unsigned> needs_reset_count = 0;
  std::atomic<bool> is_broken = false;
  std::vector<std::unique_ptr<RigDriver>> drivers;
  std::unique_ptr<DeviceBackend> backend;  // goes first
};

void Rig::State::wait(const Fd& readable, Clock::time_point deadline) {
  const int timeout = milliseconds_until(deadline);
  if (loop) {
    CHECK(loop->run_once(Millis(std::min(timeout, 10))));
    return;
  }
  pollfd waits[2] = {{.fd = readable.get(), .events = POLLIN, .revents = 0},
                     {.fd = news.get(), .events = POLLIN, .revents = 0}};
  ::poll(waits, 2, timeout);
  drain_eventfd(news);
}

template <class Condition>
bool Rig::State::wait_until(Condition condition, Millis timeout) {
  const auto deadline = Clock::now() + timeout;
  while (!condition()) {
    if (Clock::now() >= deadline) return false;
    wait(news, deadline);
  }
  return true;
}

uint64_t Rig::State::accepted() const {
  uint64_t features = backend->info().features & ~options.refused_features;
  if (!options.packed) features &= ~bit(VIRTIO_F_RING_PACKED);
  if (!options.event_idx) features &= ~bit(VIRTIO_RING_F_EVENT_IDX);
  if (!options.indirect) features &= ~bit(VIRTIO_RING_F_INDIRECT_DESC);
  return features;
}

void Rig::State::make_drivers() {
  const uint64_t features = accepted();
  for (const uint16_t largest : backend->info().queue_sizes) {
    const RigDriver::Options driver{
        .ring = {.size = std::min(largest, options.max_queue_size),
                 .packed = (features & bit(VIRTIO_F_RING_PACKED)) != 0,
                 .event_idx = (features & bit(VIRTIO_RING_F_EVENT_IDX)) != 0},
        .indirect = (features & bit(VIRTIO_RING_F_INDIRECT_DESC)) != 0};
    drivers.push_back(std::make_unique<RigDriver>(memory, *this, driver));
  }
}

void Rig::State::configure(uint16_t queue, RingPosition position) {
  RigDriver& driver = *drivers[queue];
  auto copy = [](const Fd& fd) {
    auto duplicate = fd.duplicate();
    CHECK(duplicate.has_value());
    return std::move(*duplicate);
  };
  backend->set_vring_num(queue, driver.options().ring.size);
  backend->set_vring_addr(queue, driver.ring().addresses());
  backend->set_vring_base(queue, position);
  backend->set_vring_call(queue, copy(driver.call_descriptor()));
  backend->set_vring_kick(queue, copy(driver.kick_descriptor()));
  backend->set_vring_enable(queue, true);
}

Rig::Rig(std::unique_ptr<State> state) : state_(std::move(state)) {}
Rig::Rig(Rig&&) noexcept = default;
Rig& Rig::operator=(Rig&&) noexcept = default;
Rig::~Rig() = default;

std::string name_of(RigPlace place) {
  switch (place) {
    case RigPlace::kThread:
      return "Thread";
    case RigPlace::kInline:
      return "Inline";
    case RigPlace::kWorker:
      return "Process";
  }
  return {};
}

Result<Rig> Rig::create(std::unique_ptr<OpenedDevice> device, const RigOptions& options) {
  if (options.place == RigPlace::kThread) {
    return attach(TRY(LocalBackend::create("rig", std::move(device))), options);
  }
  CHECK(options.place == RigPlace::kInline);
  auto loop = TRY(EventLoop::create());
  auto backend = TRY(InlineBackend::create(*loop, "rig", *device));
  RigOptions later = options;
  later.start = false;
  Rig rig = attach(std::move(backend), later);
  rig.state_->loop = std::move(loop);
  if (options.start) rig.start();
  return rig;
}

Result<Rig> Rig::create(const DeviceType& type, std::string_view text,
                        std::unique_ptr<OpenedDevice> device, const RigOptions& options) {
  if (options.place != RigPlace::kWorker) return create(std::move(device), options);
  CHECK(run_in_worker != nullptr);
  return attach(TRY(run_in_worker(type, text, *device)), options);
}

void set_run_in_worker(RunInWorker run) { run_in_worker = run; }

Rig Rig::attach(std::unique_ptr<DeviceBackend> backend, const RigOptions& options) {
  auto state = std::make_unique<State>(options);
  state->backend = std::move(backend);
  state->config = state->backend->info().config;
  state->backend->set_listener(state.get());
  state->make_drivers();
  Rig rig(std::move(state));
  if (options.start) rig.start();
  return rig;
}

const DeviceInfo& Rig::info() const { return state_->backend->info(); }
RigDriver& Rig::driver(uint16_t queue) { return *state_->drivers.at(queue); }
RigMemory& Rig::memory() { return state_->memory; }
DeviceBackend& Rig::backend() { return *state_->backend; }
const RigOptions& Rig::options() const { return state_->options; }
uint64_t Rig::features() const { return state_->accepted(); }

void Rig::start() {
  state_->backend->set_memory(state_->memory.guest());
  state_->backend->set_features(state_->accepted());
  for (uint16_t queue = 0; queue < state_->drivers.size(); ++queue) {
    state_->configure(queue, driver(queue).ring().position());
  }
}

void Rig::reset_and_stay() {
  std::atomic<bool> done = false;
  state_->backend->reset([state = state_.get(), &done] {
    done = true;  // the caller goes on, but cannot end the backend before this has run
    signal_eventfd(state->news);
  });
  // Without a limit: `done` is on this stack.
  while (!state_->wait_until([&] { return done.load(); }, RigDriver::kPatience)) {
    log::error("the rig's device does not finish its reset");
  }
  state_->is_broken = false;
}

void Rig::reset() {
  reset_and_stay();
  for (auto& driver : state_->drivers) driver->restart({});
  start();
}

RingPosition Rig::stop_queue(uint16_t queue) {
  std::atomic<bool> done = false;
  RingPosition position;
  state_->backend->get_vring_base(queue, [state = state_.get(), &position, &done](RingPosition at) {
    position = at;
    done = true;
    signal_eventfd(state->news);
  });
  while (!state_->wait_until([&] { return done.load(); }, RigDriver::kPatience)) {
    log::error("the rig's queue {} does not stop", queue);
  }
  return position;
}

void Rig::start_queue(uint16_t queue, RingPosition position) { state_->configure(queue, position); }

void Rig::restart() {
  std::vector<RingPosition> positions;
  for (uint16_t queue = 0; queue < state_->drivers.size(); ++queue) {
    positions.push_back(stop_queue(queue));
  }
  for (uint16_t queue = 0; queue < positions.size(); ++queue) start_queue(queue, positions[queue]);
}

bool Rig::needs_reset() const { return state_->is_broken; }
unsigned Rig::needs_reset_count() const { return state_->needs_reset_count; }

bool Rig::wait_needs_reset(Millis timeout) {
  return state_->wait_until([this] { return needs_reset(); }, timeout);
}

std::vector<std::byte> Rig::config() const {
  std::lock_guard lock(state_->mutex);
  return state_->config;
}

unsigned Rig::config_changes() const {
  std::lock_guard lock(state_->mutex);
  return state_->config_changes;
}

bool Rig::wait_config_change(unsigned seen, Millis timeout) {
  return state_->wait_until([&] { return config_changes() > seen; }, timeout);
}

void Rig::write_config(size_t offset, std::span<const std::byte> data) {
  state_->backend->set_config(offset, {data.begin(), data.end()});
}

void Rig::run_once() {
  if (state_->loop) CHECK(state_->loop->run_once(Millis(0)));
}

void Rig::settle() {
  // A kick, the turn that it asks for, and what that posts.
  for (int turn = 0; turn < 3; ++turn) run_once();
}

Rig must_have_rig(Result<Rig> rig) {
  if (!rig) log::error("the rig: {}", rig.error().what());
  CHECK(rig.has_value());
  return std::move(*rig);
}

}  // namespace crosvm
