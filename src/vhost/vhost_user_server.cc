#include "vhost/vhost_user_server.h"

#include <chrono>
#include <optional>
#include <utility>

#include "base/log.h"
#include "base/log_limit.h"
#include "vhost/vhost_user_channel.h"
#include "vhost/vhost_user_session.h"

namespace crosvm {
namespace {

// Messages taken before other work of the loop has its turn.
constexpr int kMessagesPerTurn = 16;

Error nobody() { return Error(std::errc::not_connected, "there is no front-end"); }

}  // namespace

struct VhostUserServer::State {
  State(EventLoop& its_loop, std::string its_name, Gone its_gone)
      : loop(its_loop), name(std::move(its_name)), gone(std::move(its_gone)) {}

  EventLoop& loop;
  const std::string name;
  const Gone gone;
  LogLimit complaints{"complaints about a vhost-user front-end"};
  // What the device uses when no front-end is there, and what it uses now; both outlive the host.
  std::optional<GuestMemory> no_memory;
  std::unique_ptr<GuestMemory> memory;
  std::unique_ptr<DeviceHost> host;
  std::optional<VhostUserSession::Device> device;

  std::optional<VhostUserChannel> channel;
  EventLoop::WatchId watch = 0;
  std::shared_ptr<VhostUserSession> session;
  bool stopping = false;  // the device is still busy for a front-end that has gone
  Fd next;                // the one to be served after that

  Result<void> begin(Fd socket);
  void ready(uint32_t events);
  Result<void> take_messages();
  Result<void> send_answers();
  bool can_take() const { return !session->busy() && !channel->wants_write(); }
  void watch_what_matters();
  void end(const Error& why);
  void stopped();
};

Result<std::unique_ptr<VhostUserServer>> VhostUserServer::create(EventLoop& loop,
                                                                 const std::string& name,
                                                                 const DeviceHost::MakeDevice& make,
                                                                 Gone gone) {
  auto state = std::make_unique<State>(loop, name, std::move(gone));
  State* const self = state.get();
  DeviceHost::Events events{
      .config_changed =
          [self](const std::vector<std::byte>&) {
            if (self->session) self->session->config_changed();
          },
      .needs_reset =
          [self] {
            if (self->session) self->session->needs_reset();
          },
      .map_shared =
          [self](const SharedPlace& place, SharedFile file, DeviceEvents::MapDone done) {
            if (!self->session) return done(fail(nobody()));
            self->session->map_shared(place, std::move(file), std::move(done));
          },
      .unmap_shared =
          [self](const SharedPlace& place, DeviceEvents::MapDone done) {
            if (!self->session) return done(fail(nobody()));
            self->session->unmap_shared(place, std::move(done));
          }};
  state->no_memory.emplace(TRY(GuestMemory::map({})));
  state->host = TRY(DeviceHost::create(name, std::move(events), make));
  state->device.emplace(VhostUserSession::Device{.name = name,
                                                 .loop = loop,
                                                 .host = *state->host,
                                                 .complaints = state->complaints,
                                                 .memory = state->memory,
                                                 .info = state->host->info()});
  if (state->device->info.queue_sizes.size() > kVhostUserMaxQueues) {
    return fail(Error::invalid(name + ": vhost-user can have no more than 256 queues"));
  }
  CHECK(state->device->info.shared_memory.size() <= kVhostUserMaxShmemRegions);
  return std::unique_ptr<VhostUserServer>(new VhostUserServer(std::move(state)));
}

VhostUserServer::VhostUserServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

VhostUserServer::~VhostUserServer() {
  State& state = *state_;
  state.loop.unwatch(state.watch);
  state.session.reset();
  state.channel.reset();
  state.next = {};
  bool stopped = false;
  state.host->reset([&stopped] { stopped = true; });
  while (!stopped && state.loop.run_once(std::chrono::milliseconds(100))) {
  }
}

const DeviceInfo& VhostUserServer::info() const { return state_->device->info; }

void VhostUserServer::command(DeviceCommand command, CommandDone done) {
  state_->host->command(std::move(command), std::move(done));
}

Result<void> VhostUserServer::serve(Fd socket) {
  CHECK(!state_->session && !state_->next);
  if (!state_->stopping) return state_->begin(std::move(socket));
  state_->next = std::move(socket);
  return {};
}

Result<void> VhostUserServer::State::begin(Fd socket) {
  channel.emplace(std::move(socket));
  auto watched = loop.watch(channel->socket(), EPOLLIN | EPOLLRDHUP,
                            [this](uint32_t events) { ready(events); });
  if (!watched) {
    channel.reset();
    return fail(std::move(watched).error().context(name + ": the vhost-user socket"));
  }
  watch = *watched;
  auto answered = [this] {
    // In a callback of the device: nothing of ours may go away inside it.
    loop.post([this, served = std::weak_ptr<VhostUserSession>(session)] {
      if (!served.expired()) ready(0);
    });
  };
  session = std::make_shared<VhostUserSession>(*device, std::move(answered));
  return {};
}

void VhostUserServer::State::ready(uint32_t events) {
  const bool ended = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if (ended && !can_take()) {
    // What it sent after that is of no use to anybody.
    return end(Error(std::errc::not_connected, "the vhost-user peer closed the connection"));
  }
  auto result = channel->flush();
  if (result) result = take_messages();
  if (!result) return end(result.error());
  watch_what_matters();
}

Result<void> VhostUserServer::State::take_messages() {
  TRY(send_answers());
  for (int taken = 0; taken < kMessagesPerTurn && can_take(); ++taken) {
    auto message = TRY(channel->receive());
    if (!message) return {};
    session->handle(std::move(*message));
    TRY(send_answers());
  }
  return {};
}

Result<void> VhostUserServer::State::send_answers() {
  while (auto answer = session->next_answer()) TRY(channel->send(std::move(*answer)));
  return {};
}

void VhostUserServer::State::watch_what_matters() {
  uint32_t events = EPOLLRDHUP;
  if (can_take()) events |= EPOLLIN;
  if (channel->wants_write()) events |= EPOLLOUT;
  if (auto set = loop.set_events(watch, events); !set) end(set.error());
}

void VhostUserServer::State::end(const Error& why) {
  loop.unwatch(std::exchange(watch, 0));
  session.reset();
  channel.reset();
  stopping = true;
  gone(why);
  host->reset([this] { stopped(); });
}

void VhostUserServer::State::stopped() {
  host->set_dirty_log(nullptr);
  host->set_memory(*no_memory, [former = std::shared_ptr<GuestMemory>(std::move(memory))] {});
  stopping = false;
  if (!next) return;
  if (auto begun = begin(std::move(next)); !begun) {
    log::error("{}", begun.error().what());
    gone(begun.error());
  }
}

}  // namespace crosvm
