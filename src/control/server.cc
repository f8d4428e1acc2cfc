#include "control/server.h"

#include <sys/resource.h>

#include <algorithm>
#include <deque>
#include <map>

#include "base/log.h"
#include "base/log_limit.h"

namespace crosvm::control {
namespace {

using namespace std::chrono_literals;

constexpr auto kAcceptPause = 100ms;  // when descriptors or memory are short

size_t default_max_connections() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 16;
  return std::clamp<size_t>(limit.rlim_cur / 2, 16, 4096);
}

struct Connection {
  explicit Connection(PacketSocket connected) : socket(std::move(connected)) {}

  PacketSocket socket;
  EventLoop::WatchId watch = 0;  // 0: not watched yet
  std::deque<Packet> output;
  bool busy = false;      // a request that others must not overtake is being executed
  size_t late = 0;        // requests whose answers may come any time
  uint64_t last_use = 0;  // a count, for finding the one unused longest

  bool waits_for_answer() const { return busy || late != 0; }
};

}  // namespace

/// What connections, replies and the loop's callbacks share.
class ServerCore : public std::enable_shared_from_this<ServerCore> {
 public:
  ServerCore(EventLoop& loop, Listener listener, Server::Handler handler, Server::Options options)
      : loop_(loop),
        listener_(std::move(listener)),
        handler_(std::move(handler)),
        options_(options) {
    if (options_.max_connections == 0) options_.max_connections = default_max_connections();
  }

  Result<void> start();
  void shut_down();
  void answer(uint64_t id, bool late, Response response);
  void finish(uint64_t id, bool late);
  void release_order(uint64_t id);

  size_t connection_count() const { return connections_.size(); }
  const std::string& path() const { return listener_.path(); }

 private:
  using Held = std::shared_ptr<Connection>;

  Result<void> watch_listener();
  void pause_accepting();
  void accept_one();
  void add(PacketSocket socket);
  bool make_room();
  void ready(uint64_t id, uint32_t events);
  bool may_read(const Connection& connection) const {
    return !connection.busy && connection.late < options_.max_late;
  }
  void read_request(uint64_t id, const Held& connection);
  void dispatch(uint64_t id, const Held& connection, Request request);
  bool flush(uint64_t id, const Held& connection);
  void update_watch(uint64_t id, const Held& connection);
  void drop(uint64_t id, std::string_view why);
  Held find(uint64_t id) const;

  EventLoop& loop_;
  Listener listener_;
  Server::Handler handler_;
  Server::Options options_;
  EventLoop::WatchId listener_watch_ = 0;
  EventLoop::TimerId accept_timer_ = 0;
  std::map<uint64_t, Held> connections_;
  uint64_t next_id_ = 1;
  uint64_t uses_ = 0;
  LogLimit log_limit_{"control socket errors"};
};

struct Reply::State {
  std::weak_ptr<ServerCore> core;
  uint64_t connection;
  bool mute;  // a request that is never answered
  bool late = false;
  bool done = false;

  State(std::weak_ptr<ServerCore> core, uint64_t connection, bool mute)
      : core(std::move(core)), connection(connection), mute(mute) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { finish(); }

  void finish() {
    if (std::exchange(done, true)) return;
    if (auto server = core.lock()) server->finish(connection, late);
  }
};

void Reply::operator()(Response response) const {
  if (state_->mute) return state_->finish();
  if (std::exchange(state_->done, true)) return;
  if (auto server = state_->core.lock()) {
    server->answer(state_->connection, state_->late, std::move(response));
  }
}

void Reply::make_late() const {
  if (state_->done || std::exchange(state_->late, true)) return;
  if (auto server = state_->core.lock()) server->release_order(state_->connection);
}

Result<void> ServerCore::start() { return watch_listener(); }

Result<void> ServerCore::watch_listener() {
  listener_watch_ = TRY(loop_.watch(listener_.fd(), EPOLLIN, [this](uint32_t) { accept_one(); }));
  return {};
}

void ServerCore::shut_down() {
  loop_.unwatch(listener_watch_);
  loop_.cancel(accept_timer_);
  for (auto& [id, connection] : connections_) loop_.unwatch(connection->watch);
  connections_.clear();
}

void ServerCore::accept_one() {
  auto socket = listener_.accept();
  if (socket) {
    if (*socket) add(std::move(**socket));
    return;
  }
  // The descriptor that another held serves the next attempt.
  if (socket.error().code() == std::errc::too_many_files_open && make_room()) return;
  if (log_limit_.allows()) log::error("{}", socket.error().what());
  // The waiting client would keep the listener ready, and the loop spinning.
  loop_.unwatch(std::exchange(listener_watch_, 0));
  pause_accepting();
}

void ServerCore::pause_accepting() {
  accept_timer_ = loop_.after(kAcceptPause, [this] {
    auto watched = watch_listener();
    if (watched) return;
    if (log_limit_.allows()) log::error("{}", watched.error().what());
    pause_accepting();
  });
}

void ServerCore::add(PacketSocket socket) {
  if (connections_.size() >= options_.max_connections) make_room();
  uint64_t id = next_id_++;
  auto connection = std::make_shared<Connection>(std::move(socket));
  connection->last_use = ++uses_;
  connections_.emplace(id, connection);
  update_watch(id, connection);
}

/// Closes the connection unused longest: an idle one, or where all wait for answers, one of those.
/// False when there is none at all.
bool ServerCore::make_room() {
  auto rank = [](const auto& entry) {
    const Connection& connection = *entry.second;
    return std::pair(connection.waits_for_answer(), connection.last_use);
  };
  auto oldest = std::ranges::min_element(connections_, {}, rank);
  if (oldest == connections_.end()) return false;
  drop(oldest->first, oldest->second->waits_for_answer()
                          ? "too many, and all wait for answers; this one longest"
                          : "idle, and there are too many");
  return true;
}

ServerCore::Held ServerCore::find(uint64_t id) const {
  auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second;
}

void ServerCore::ready(uint64_t id, uint32_t events) {
  Held connection = find(id);
  if (!connection) return;
  if (!connection->output.empty()) {
    if (flush(id, connection)) update_watch(id, connection);
  } else if (may_read(*connection)) {
    read_request(id, connection);
  } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    drop(id, "with answers outstanding");
  }
}

void ServerCore::read_request(uint64_t id, const Held& connection) {
  auto packet = connection->socket.receive();
  if (packet && !*packet) return drop(id, connection->late != 0 ? "with answers outstanding" : "");
  if (!packet) {
    std::errc code = packet.error().code();
    if (code == std::errc::resource_unavailable_try_again) return;
    bool goes_on = code == std::errc::message_size || code == std::errc::bad_message;
    if (!goes_on) return drop(id, packet.error().what());
    if (log_limit_.allows()) log::error("{}", packet.error().what());
    return;
  }
  connection->last_use = ++uses_;
  auto request = decode_request(std::move(**packet));
  if (!request) {
    if (log_limit_.allows()) log::error("{}", request.error().what());
    return;
  }
  dispatch(id, connection, std::move(*request));
}

void ServerCore::dispatch(uint64_t id, const Held& connection, Request request) {
  connection->busy = true;
  bool mute = std::holds_alternative<Throttle>(request);
  {
    Reply reply(std::make_shared<Reply::State>(weak_from_this(), id, mute));
    handler_(std::move(request), std::move(reply));
  }
  update_watch(id, connection);
}

void ServerCore::answer(uint64_t id, bool late, Response response) {
  Held connection = find(id);
  if (!connection) {
    if (log_limit_.allows()) log::error("control client has gone before its answer");
    return;
  }
  connection->output.push_back(encode(std::move(response)));
  if (flush(id, connection)) finish(id, late);
}

void ServerCore::finish(uint64_t id, bool late) {
  Held connection = find(id);
  if (!connection) return;
  if (late) {
    --connection->late;
  } else {
    connection->busy = false;
  }
  update_watch(id, connection);
}

void ServerCore::release_order(uint64_t id) {
  Held connection = find(id);
  if (!connection) return;
  connection->busy = false;
  ++connection->late;
  update_watch(id, connection);
}

/// False when the connection is gone.
bool ServerCore::flush(uint64_t id, const Held& connection) {
  while (!connection->output.empty()) {
    auto sent = connection->socket.send(connection->output.front());
    if (!sent) {
      std::errc code = sent.error().code();
      if (code == std::errc::resource_unavailable_try_again) return true;
      if (code != std::errc::message_size) {
        drop(id, sent.error().what());
        return false;
      }
      log::error("control answer dropped: {}", sent.error().what());
    }
    connection->output.pop_front();
  }
  return true;
}

/// Waits for what the connection needs next; while a request is executed, for a hang-up alone,
/// which is always reported.
void ServerCore::update_watch(uint64_t id, const Held& connection) {
  if (!connections_.contains(id)) return;
  uint32_t events = 0;
  if (!connection->output.empty()) {
    events = EPOLLOUT;
  } else if (may_read(*connection)) {
    events = EPOLLIN;
  }
  Result<void> watched;
  if (connection->watch != 0) {
    watched = loop_.set_events(connection->watch, events);
  } else if (auto watch = loop_.watch(connection->socket.fd(), events,
                                      [this, id](uint32_t ready_for) { ready(id, ready_for); })) {
    connection->watch = *watch;
  } else {
    watched = fail(std::move(watch).error());
  }
  if (!watched) drop(id, watched.error().what());
}

void ServerCore::drop(uint64_t id, std::string_view why) {
  auto found = connections_.find(id);
  if (found == connections_.end()) return;
  loop_.unwatch(found->second->watch);
  connections_.erase(found);
  if (!why.empty() && log_limit_.allows()) log::error("control connection closed: {}", why);
}

Result<std::unique_ptr<Server>> Server::create(EventLoop& loop, Listener listener, Handler handler,
                                               const Options& options) {
  auto core = std::make_shared<ServerCore>(loop, std::move(listener), std::move(handler), options);
  TRY(core->start());
  return std::unique_ptr<Server>(new Server(std::move(core)));
}

Server::~Server() { core_->shut_down(); }

size_t Server::connection_count() const { return core_->connection_count(); }

const std::string& Server::path() const { return core_->path(); }

}  // namespace crosvm::control
