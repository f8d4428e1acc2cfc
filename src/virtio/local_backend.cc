#include "virtio/local_backend.h"

#include <pthread.h>

#include <algorithm>
#include <future>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>

#include "base/event_loop.h"
#include "base/format.h"
#include "base/log.h"
#include "base/start_error.h"
#include "virtio/config_writes.h"
#include "virtio/device_rings.h"

namespace crosvm {
namespace {

/// `done`, called in its end at the latest: also when the loop that should call it has failed.
template <class Argument>
class Surely {
 public:
  explicit Surely(std::function<void(Argument)> done) : done_(std::move(done)) {}
  Surely(const Surely&) = delete;
  Surely& operator=(const Surely&) = delete;
  ~Surely() { (*this)({}); }
  void operator()(Argument argument) {
    if (auto done = std::exchange(done_, nullptr)) done(argument);
  }

 private:
  std::function<void(Argument)> done_;
};

}  // namespace

struct LocalBackend::State {
  DeviceInfo info;
  std::mutex listener_mutex;
  BackendListener* listener = nullptr;  // guarded by listener_mutex, also while it is called
  std::optional<std::vector<std::byte>> last_config;  // guarded by it too; none: as in `info`

  std::mutex loop_mutex;
  std::unique_ptr<EventLoop> loop;  // the pointer is guarded by loop_mutex; null: it has failed
  // Guarded by loop_mutex. Posted last of all: what is posted after it must not be overtaken.
  std::shared_ptr<ConfigWrites> last_writes;
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
    {
      std::lock_guard lock(loop_mutex);
      last_writes.reset();
      if (loop) return loop->post([this, verb = std::move(verb)]() mutable { verb(*host); });
    }
    // The verb is forgotten, and with it a Surely is called.
    tell([](BackendListener& to) { to.needs_reset(); });
  }
  void post_config_write(size_t offset, std::vector<std::byte> data);
  void write_config(const std::shared_ptr<ConfigWrites>& batch);
};

void LocalBackend::State::post_config_write(size_t offset, std::vector<std::byte> data) {
  std::lock_guard lock(loop_mutex);
  if (!loop) return;  // the driver has been told
  if (last_writes) return last_writes->add(offset, std::move(data));
  last_writes = std::make_shared<ConfigWrites>();
  last_writes->add(offset, std::move(data));
  loop->post([this, batch = last_writes] { write_config(batch); });
}

void LocalBackend::State::write_config(const std::shared_ptr<ConfigWrites>& batch) {
  {
    std::lock_guard lock(loop_mutex);
    if (last_writes == batch) last_writes.reset();
  }
  for (const ConfigWrites::Write& write : batch->writes) host->set_config(write.offset, write.data);
}

Result<void> LocalBackend::State::make_host(const std::string& name, OpenedDevice& device) {
  DeviceHost::Events events{
      .config_changed =
          [this](std::vector<std::byte> config) {
            std::lock_guard lock(listener_mutex);
            last_config = config;
            if (listener) listener->config_changed(std::move(config));
          },
      .needs_reset = [this] { tell([](BackendListener& to) { to.needs_reset(); }); }};
  auto make = [&](DeviceEvents& to_host) {
    return device.create(
        {.loop = *loop, .events = to_host, .rings = make_device_rings(name, device.rings())});
  };
  host = TRY(with_context(DeviceHost::create(name, std::move(events), make), name));
  info = host->info();
  return {};
}

void LocalBackend::State::run(const std::string& name) {
  auto ran = loop->run();
  std::unique_ptr<EventLoop> failed;
  if (!ran) {
    log::error("{}: its event loop has failed, the device is gone: {}", name, ran.error().what());
    // First of all: what a driver asks for from here on is answered without a loop.
    std::lock_guard lock(loop_mutex);
    failed = std::move(loop);
  }
  if (!ran) tell([](BackendListener& to) { to.needs_reset(); });
  host.reset();
  // With a failed loop go the verbs that it has not run, and who waits for one is told.
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
    return fail(start_error("starting the thread of", name, error.code().value()));
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
  if (listener && state_->last_config) listener->config_changed(*state_->last_config);
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
  auto surely = std::make_shared<Surely<RingPosition>>(std::move(done));
  state_->post([index, surely = std::move(surely)](DeviceHost& host) {
    host.get_vring_base(index, [surely](RingPosition at) { (*surely)(at); });
  });
}

void LocalBackend::reset(std::function<void()> done) {
  using Stopped = Surely<std::monostate>;
  auto surely = std::make_shared<Stopped>([done = std::move(done)](std::monostate) { done(); });
  state_->post(
      [surely = std::move(surely)](DeviceHost& host) { host.reset([surely] { (*surely)({}); }); });
}

void LocalBackend::set_config(size_t offset, std::vector<std::byte> data) {
  state_->post_config_write(offset, std::move(data));
}

void LocalBackend::command(DeviceCommand command, CommandDone done) {
  // Shared, as what is posted must be copyable.
  auto shared = std::make_shared<DeviceCommand>(std::move(command));
  state_->post([shared, done = surely(std::move(done))](DeviceHost& host) {
    host.command(std::move(*shared), done);
  });
}

}  // namespace crosvm
