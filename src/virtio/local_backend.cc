#include "virtio/local_backend.h"

#include <pthread.h>

#include <future>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "base/event_loop.h"
#include "base/format.h"
#include "base/io_uring.h"
#include "base/log.h"

namespace crosvm {
namespace {

// Operations that one submission can hold: a queue's worth of requests.
constexpr uint32_t kRingEntries = 256;

/// As many rings as the device can use, or none where the host has none to give.
std::vector<IoUring> make_rings(const std::string& name, size_t count) {
  std::vector<IoUring> rings;
  for (size_t i = 0; i < count; ++i) {
    auto ring = IoUring::create(kRingEntries);
    if (!ring) {
      log::info("{}: no io_uring: {}", name, ring.error().what());
      return {};
    }
    rings.push_back(std::move(*ring));
  }
  return rings;
}

}  // namespace

struct LocalBackend::State {
  DeviceInfo info;
  std::mutex listener_mutex;
  BackendListener* listener = nullptr;  // guarded by listener_mutex, also while it is called
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<DeviceHost> host;  // made, used and destroyed on the thread
  std::thread thread;

  template <class Call>
  void tell(Call call) {
    std::lock_guard lock(listener_mutex);
    if (listener) call(*listener);
  }
  Result<void> make_host(const std::string& name, OpenedDevice& device);
  void run(const std::string& name);
  /// `verb(host)` on the thread.
  template <class Verb>
  void post(Verb verb) {
    loop->post([this, verb = std::move(verb)]() mutable { verb(*host); });
  }
};

Result<void> LocalBackend::State::make_host(const std::string& name, OpenedDevice& device) {
  DeviceHost::Events events{
      .config_changed =
          [this](std::vector<std::byte> config) {
            tell([&](BackendListener& to) { to.config_changed(std::move(config)); });
          },
      .needs_reset = [this] { tell([](BackendListener& to) { to.needs_reset(); }); }};
  auto make = [&](DeviceEvents& to_host) {
    return device.create(
        {.loop = *loop, .events = to_host, .rings = make_rings(name, device.rings())});
  };
  host = TRY(DeviceHost::create(name, std::move(events), make));
  info = host->info();
  return {};
}

void LocalBackend::State::run(const std::string& name) {
  auto ran = loop->run();
  if (!ran) {
    log::error("{}: {}", name, ran.error().what());
    tell([](BackendListener& to) { to.needs_reset(); });
  }
  host.reset();
}

LocalBackend::LocalBackend(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<LocalBackend>> LocalBackend::create(std::string name,
                                                           std::unique_ptr<OpenedDevice> device) {
  auto owned = std::make_unique<State>();
  State* state = owned.get();
  state->loop = TRY(with_context(EventLoop::create(), name));
  std::promise<Result<void>> made;
  std::future<Result<void>> result = made.get_future();
  auto body = [state, name, made = std::move(made), device = std::move(device)]() mutable {
    ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
    Result<void> created = state->make_host(name, *device);
    device.reset();
    const bool runs = created.has_value();
    made.set_value(std::move(created));
    if (runs) state->run(name);
  };
  try {  // std::thread has no other way to say that the system refused
    state->thread = std::thread(std::move(body));
  } catch (const std::system_error& error) {
    return fail(Error::from_errno("starting the thread of", name, error.code().value()));
  }
  if (Result<void> created = result.get(); !created) {
    state->thread.join();
    return fail(std::move(created).error());
  }
  return std::unique_ptr<LocalBackend>(new LocalBackend(std::move(owned)));
}

LocalBackend::~LocalBackend() {
  State* state = state_.get();
  set_listener(nullptr);
  state->post([state](DeviceHost& host) { host.reset([state] { state->loop->stop(); }); });
  state->thread.join();
}

const DeviceInfo& LocalBackend::info() const { return state_->info; }

void LocalBackend::set_listener(BackendListener* listener) {
  std::lock_guard lock(state_->listener_mutex);
  state_->listener = listener;
}

void LocalBackend::set_features(uint64_t features) {
  state_->post([features](DeviceHost& host) { host.set_features(features); });
}

void LocalBackend::set_memory(const GuestMemory& memory) {
  state_->post([&memory](DeviceHost& host) { host.set_memory(memory); });
}

void LocalBackend::set_vring_num(uint16_t index, uint16_t size) {
  state_->post([=](DeviceHost& host) { host.set_vring_num(index, size); });
}

void LocalBackend::set_vring_addr(uint16_t index, const VringAddresses& addresses) {
  state_->post([=](DeviceHost& host) { host.set_vring_addr(index, addresses); });
}

void LocalBackend::set_vring_base(uint16_t index, RingPosition position) {
  state_->post([=](DeviceHost& host) { host.set_vring_base(index, position); });
}

void LocalBackend::set_vring_kick(uint16_t index, Fd kick) {
  // Shared, as what is posted must be copyable.
  auto shared = std::make_shared<Fd>(std::move(kick));
  state_->post([=](DeviceHost& host) { host.set_vring_kick(index, std::move(*shared)); });
}

void LocalBackend::set_vring_call(uint16_t index, Fd call) {
  auto shared = std::make_shared<Fd>(std::move(call));
  state_->post([=](DeviceHost& host) { host.set_vring_call(index, std::move(*shared)); });
}

void LocalBackend::set_vring_enable(uint16_t index, bool enable) {
  state_->post([=](DeviceHost& host) { host.set_vring_enable(index, enable); });
}

void LocalBackend::get_vring_base(uint16_t index, std::function<void(RingPosition)> done) {
  state_->post([index, done = std::move(done)](DeviceHost& host) mutable {
    host.get_vring_base(index, std::move(done));
  });
}

void LocalBackend::reset(std::function<void()> done) {
  state_->post([done = std::move(done)](DeviceHost& host) mutable { host.reset(std::move(done)); });
}

void LocalBackend::set_config(size_t offset, std::vector<std::byte> data) {
  state_->post(
      [offset, data = std::move(data)](DeviceHost& host) { host.set_config(offset, data); });
}

}  // namespace crosvm
