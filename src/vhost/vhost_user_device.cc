#include "vhost/vhost_user_device.h"

#include <fcntl.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "virtio/ring.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

using namespace std::chrono_literals;

// The back-end's own requests are served so often, and then not before the time is up. Those about
// shared memory come often, and make us ask for nothing.
constexpr unsigned kMostRequests = 1024;
constexpr unsigned kRequestsOfANews = 16;
constexpr auto kRequestsPause = 100ms;

constexpr uint64_t bits(unsigned first, unsigned last) {
  return (~uint64_t{0} >> (63 - last)) & (~uint64_t{0} << first);
}
/// What a guest may be offered of a back-end's features: those of the device's type, and those of
/// rings that this front-end can set up.
constexpr uint64_t kGuestFeatures =
    bits(0, 23) | bits(50, 63) | vhost_user_bit(VIRTIO_RING_F_INDIRECT_DESC) |
    vhost_user_bit(VIRTIO_RING_F_EVENT_IDX) | vhost_user_bit(VIRTIO_F_VERSION_1) |
    vhost_user_bit(VIRTIO_F_RING_PACKED);

std::vector<size_t> config_lengths(const VhostUserOptions& options) {
  if (options.own_config) return {};
  if (options.config_length) return {*options.config_length};
  return vhost_user_type(options.device_type).config_lengths;
}

}  // namespace

VhostUserDevice::Peer::Peer(Fd socket, const VhostUserOptions& options)
    : conversation(std::move(socket), options.patience),
      handshake(conversation, config_lengths(options), options.shared_memory != nullptr) {}

VhostUserDevice::VhostUserDevice(EventLoop& loop, VhostUserOptions options)
    : LoopDevice(loop),
      options_(std::move(options)),
      type_(vhost_user_type(options_.device_type)) {}

VhostUserDevice::~VhostUserDevice() { disconnect(); }

// ---- the start

Result<void> VhostUserDevice::begin(Fd socket) {
  peer_ = std::make_unique<Peer>(std::move(socket), options_);
  return peer_->handshake.begin();
}

Result<void> VhostUserDevice::finish(const Fd* interrupt) {
  const auto until = VhostUserConversation::Clock::now() + options_.patience;
  TRY(with_context(
      peer_->conversation.wait_until([this] { return peer_->handshake.done(); }, until, interrupt),
      options_.name));
  DeviceInfo info = TRY(with_context(info_from_peer(), options_.name));
  if (options_.shared_memory) {
    shared_memory_.emplace(info.shared_memory, *options_.shared_memory);
  }
  make_rings(std::move(info));
  return {};
}

Result<DeviceInfo> VhostUserDevice::info_from_peer() const {
  uint64_t features = said().features & kGuestFeatures & ~options_.hidden_features;
  if (!has(VHOST_USER_PROTOCOL_F_CONFIG)) {
    features &= ~vhost_user_features_with_config(options_.device_type);
  }
  const uint64_t queues = vhost_user_queue_count(type_, said().queues, features);
  if (queues > kVhostUserMaxQueues) {
    return fail(Error::invalid(format_text("the vhost-user back-end has {} queues, {} can be",
                                           queues, kVhostUserMaxQueues)));
  }
  if (said().queues != 0 && queues < options_.queue_sizes.size()) {
    return fail(Error::invalid(format_text("the vhost-user back-end has {} queues instead of {}",
                                           queues, options_.queue_sizes.size())));
  }
  DeviceInfo info{.name = options_.name,
                  .device_type = options_.device_type,
                  .features = features,
                  .queue_sizes = options_.queue_sizes,
                  .config = said().config,
                  .shared_memory = said().shared_memory};
  if (info.queue_sizes.empty()) {
    const uint16_t largest =
        std::bit_floor(std::clamp<uint16_t>(options_.max_queue_size, 1, kMaxQueueSize));
    info.queue_sizes.assign(queues, largest);
  }
  if (options_.own_config) {
    info.features |= options_.own_config->features;
    info.config = options_.own_config->present;
    return info;
  }
  const std::vector<size_t> lengths = config_lengths(options_);
  if (info.config.empty() && !lengths.empty()) info.config.resize(lengths.front());
  return info;
}

void VhostUserDevice::attach() {
  note(watch_requests());
  peer_->events = EPOLLIN;
  auto watched = loop().watch(peer_->conversation.socket(), EPOLLIN,
                              [this](uint32_t events) { socket_ready(events); });
  if (watched) peer_->watch = *watched;
  if (!watched) note(fail(std::move(watched).error()));
  settle();
}

Result<void> VhostUserDevice::watch_requests() {
  auto socket = peer_->handshake.take_requests();
  if (!socket) return {};
  VhostUserRequests::ServeMemory serve;
  if (said().shares_memory()) {
    serve = [this](VhostUserMessage& message) { return serve_memory(message); };
  }
  peer_->requests.emplace(std::move(*socket), std::move(serve));
  peer_->requests_watch =
      TRY(loop().watch(peer_->requests->socket(), EPOLLIN, [this](uint32_t) { requests_ready(); }));
  return {};
}

// ---- the conversation

void VhostUserDevice::note(Result<void> result) {
  if (!result && !peer_->failure) peer_->failure = std::move(result).error();
}

void VhostUserDevice::tell(VhostUserMessage message) {
  if (up()) note(peer_->conversation.tell(std::move(message)));
}

void VhostUserDevice::order(VhostUserMessage message, VhostUserConversation::OnRefused refused,
                            VhostUserConversation::OnDone on_done) {
  if (up()) {
    note(peer_->conversation.order(std::move(message), std::move(refused), std::move(on_done)));
  }
}

VhostUserConversation::OnRefused VhostUserDevice::breaks_down() {
  return [this](const std::string& why) { rings().break_down(why); };
}

VhostUserConversation::OnRefused VhostUserDevice::only_complains() {
  return [this](const std::string& why) { complain(why); };
}

void VhostUserDevice::socket_ready(uint32_t events) {
  std::lock_guard lock(mutex());
  if (closed() || !peer_) return;
  if ((events & EPOLLOUT) != 0) note(peer_->conversation.writable());
  if ((events & ~uint32_t{EPOLLOUT}) != 0 && !peer_->failure) note(peer_->conversation.readable());
  settle();
}

void VhostUserDevice::timer_fired() {
  std::lock_guard lock(mutex());
  if (closed() || !peer_) return;
  peer_->timer = 0;
  note(peer_->conversation.check_deadline(VhostUserConversation::Clock::now()));
  settle();
}

void VhostUserDevice::settle() {
  if (!peer_) return;
  if (!peer_->failure && peer_->watch != 0) {
    const uint32_t events = EPOLLIN | (peer_->conversation.wants_write() ? uint32_t{EPOLLOUT} : 0);
    if (events != peer_->events) note(loop().set_events(peer_->watch, events));
    peer_->events = events;
    arm_timer();
  }
  if (peer_->failure) lose(*std::exchange(peer_->failure, std::nullopt));
}

void VhostUserDevice::arm_timer() {
  // One that fires early is armed anew: answers mostly come long before.
  const auto deadline = peer_->conversation.deadline();
  if (!deadline || (peer_->timer != 0 && peer_->timer_at <= *deadline)) return;
  if (peer_->timer != 0) loop().cancel(peer_->timer);
  peer_->timer_at = *deadline;
  peer_->timer = loop().at(*deadline, [this] { timer_fired(); });
}

void VhostUserDevice::disconnect() {
  state_transfer_.reset();
  state_busy_ = false;
  if (shared_memory_) shared_memory_->clear();
  if (!peer_) return;
  // A handshake that failed is no business of the loop, which runs on another thread.
  for (EventLoop::WatchId id : {peer_->watch, peer_->requests_watch, peer_->error_watch}) {
    if (id != 0) loop().unwatch(id);
  }
  for (EventLoop::TimerId id : {peer_->timer, peer_->requests_timer}) {
    if (id != 0) loop().cancel(id);
  }
  peer_.reset();
}

// ---- the end of a back-end, and the next

void VhostUserDevice::lose(Error cause) {
  disconnect();
  for (auto& [id, done] : std::exchange(pending_, {})) {
    done(fail(Error(cause.code(), options_.name + ": its vhost-user back-end is gone")));
  }
  if (auto done = std::exchange(reconnected_, nullptr)) {
    return done(fail(std::move(cause).context(options_.name)));
  }
  log::error("{}: the vhost-user back-end is gone: {}", options_.name, cause.what());
  rings().lost();
  ready_ = false;
  const AfterLoss next = options_.disconnected ? options_.disconnected(cause) : AfterLoss::kGiveUp;
  if (next == AfterLoss::kGiveUp) return give_up();
  if (next == AfterLoss::kGoOnWithout) {
    rings().go_on_without();
    inflight_.reset();
  }
  if (options_.own_config) tell_config(options_.own_config->absent);
}

void VhostUserDevice::give_up() {
  if (std::exchange(gone_, true)) return;
  if (peer_) disconnect();
  if (auto done = std::exchange(reconnected_, nullptr)) {
    done(fail(Error(std::errc::operation_canceled, options_.name + ": given up")));
  }
  rings().abandon();
  inflight_.reset();
  if (!std::exchange(waiting_writes_, {}).writes.empty()) tell_config(config());
}

void VhostUserDevice::reconnect(Fd socket, std::function<void(Result<void>)> done) {
  if (peer_ || gone_) {
    return done(fail(Error(std::errc::operation_not_permitted,
                           options_.name + ": its vhost-user back-end is not awaited")));
  }
  reconnected_ = std::move(done);
  peer_ = std::make_unique<Peer>(std::move(socket), options_);
  peer_->successor = true;
  // Only noted here: the connection must not go inside its own call.
  note(peer_->handshake.begin([this] { return accept_another(); }));
  if (!peer_->failure) attach();
  settle();
}

Result<void> VhostUserDevice::accept_another() {
  const DeviceInfo now = TRY(info_from_peer());
  const uint64_t wanted = rings().features().value_or(info().features);
  if (const uint64_t lacking = wanted & ~now.features; lacking != 0) {
    return fail(
        Error(std::errc::not_supported,
              format_text("the vhost-user back-end that should take over lacks the features "
                          "{:#x}",
                          lacking)));
  }
  if (now.queue_sizes.size() < info().queue_sizes.size() ||
      now.config.size() != info().config.size()) {
    return fail(Error::invalid(
        format_text("the vhost-user back-end that should take over has {} queues and {} bytes of "
                    "configuration, the former one had {} and {}",
                    now.queue_sizes.size(), now.config.size(), info().queue_sizes.size(),
                    info().config.size())));
  }
  if (now.shared_memory != info().shared_memory) {
    return fail(Error::invalid(
        "the vhost-user back-end that should take over has other shared memory regions"));
  }
  if (log_ && !can_log()) {
    return fail(Error(std::errc::not_supported,
                      "the vhost-user back-end that should take over keeps no log of dirty pages"));
  }
  TRY(watch_requests());
  rings().set_offered(now.features & info().features);
  if (now.config != config()) tell_config(now.config);
  auto done = std::exchange(reconnected_, nullptr);
  rings().restored();
  flush_config();
  done({});
  return {};
}

// ---- what the back-end says by itself

void VhostUserDevice::requests_ready() {
  std::lock_guard lock(mutex());
  if (closed() || !peer_ || !peer_->requests) return;
  auto news = peer_->requests->take_one();
  if (!news) {
    // It may close the channel; it serves its rings without it.
    if (news.error().code() != std::errc::not_connected) complain(news.error().what());
    loop().unwatch(std::exchange(peer_->requests_watch, 0));
    peer_->requests.reset();
    return;
  }
  switch (*news) {
    case VhostUserRequests::News::kNothing:
    case VhostUserRequests::News::kSharedMemory:
      break;
    case VhostUserRequests::News::kUnknown:
      complain("an unknown request of the vhost-user back-end was answered with an error");
      break;
    case VhostUserRequests::News::kConfigChanged:
      ask_config();
      ask_status();
      break;
    case VhostUserRequests::News::kRingFailed:
      rings().break_down("its vhost-user back-end reports a broken ring");
      break;
  }
  peer_->served_requests += *news == VhostUserRequests::News::kSharedMemory ? 1 : kRequestsOfANews;
  if (peer_->served_requests >= kMostRequests) hold_requests();
  const uint32_t events =
      (peer_->requests_held ? 0 : uint32_t{EPOLLIN}) |
      (peer_->requests->wants_write() && !peer_->requests_held ? uint32_t{EPOLLOUT} : 0);
  note(loop().set_events(peer_->requests_watch, events));
  settle();
}

void VhostUserDevice::hold_requests() {
  if (std::exchange(peer_->requests_held, true)) return;
  peer_->requests_timer = loop().after(kRequestsPause, [this] {
    std::lock_guard lock(mutex());
    if (closed() || !peer_ || !peer_->requests) return;
    peer_->requests_held = false;
    peer_->served_requests = 0;
    note(loop().set_events(peer_->requests_watch, EPOLLIN));
    settle();
  });
}

Result<void> VhostUserDevice::watch_ring_error() {
  if (peer_->error_watch != 0) return {};
  peer_->ring_error = TRY(make_eventfd());
  peer_->error_watch =
      TRY(loop().watch(peer_->ring_error, EPOLLIN, [this](uint32_t) { ring_error_ready(); }));
  return {};
}

void VhostUserDevice::ring_error_ready() {
  std::lock_guard lock(mutex());
  if (closed() || !peer_) return;
  // Never read: the back-end has it too, and might make that block. When a ring starts again there
  // is another one.
  loop().unwatch(std::exchange(peer_->error_watch, 0));
  peer_->ring_error = {};
  rings().break_down("its vhost-user back-end reports a broken ring");
  settle();
}

void VhostUserDevice::ask_status() {
  if (!up() || !has(VHOST_USER_PROTOCOL_F_STATUS) || std::exchange(peer_->status_asked, true)) {
    return;
  }
  auto on_answer = [this](VhostUserMessage answer) -> Result<void> {
    peer_->status_asked = false;
    const auto status = answer.payload_as<uint64_t>();
    if (!status)
      return fail(Error(std::errc::bad_message, "GET_STATUS was not answered with a u64"));
    if ((*status & VIRTIO_CONFIG_S_NEEDS_RESET) != 0) {
      rings().break_down("its vhost-user back-end says so");
    }
    return {};
  };
  note(peer_->conversation.ask(vhost_user_message(VHOST_USER_GET_STATUS), std::move(on_answer)));
}

// ---- the device configuration

void VhostUserDevice::write_config(size_t offset, std::vector<std::byte> data) {
  const size_t size = info().config.size();
  if (offset > size || data.size() > size - offset) {
    return complain(format_text("{} bytes written at offset {} of a configuration of {}",
                                data.size(), offset, size));
  }
  if (data.empty()) return;
  if (gone_ || options_.own_config || (up() && !has_config())) return tell_config(config());
  waiting_writes_.add(offset, std::move(data));
  // No more than the back-end takes: while it owes an answer they wait here, and are bounded.
  if (up() && !peer_->config_asked) flush_config();
}

void VhostUserDevice::flush_config() {
  if (!up() || waiting_writes_.writes.empty()) return;
  if (!has_config()) {  // the one before had it
    waiting_writes_ = {};
    return tell_config(config());
  }
  for (const ConfigWrites::Write& write : std::exchange(waiting_writes_, {}).writes) {
    send_config(write);
  }
  ask_config();
}

void VhostUserDevice::before_verb() { flush_config(); }

void VhostUserDevice::send_config(const ConfigWrites::Write& write) {
  auto message = vhost_user_message(
      VHOST_USER_SET_CONFIG, VhostUserConfigHeader{.offset = static_cast<uint32_t>(write.offset),
                                                   .size = static_cast<uint32_t>(write.data.size()),
                                                   .flags = kVhostUserConfigWritable});
  message.payload.insert(message.payload.end(), write.data.begin(), write.data.end());
  order(std::move(message), only_complains());
}

void VhostUserDevice::ask_config() {
  if (!up() || !has_config() || info().config.empty()) return;
  if (std::exchange(peer_->config_asked, true)) {
    peer_->config_changed_again = true;
    return;
  }
  note(peer_->conversation.ask(
      vhost_user_get_config(info().config.size()),
      [this](VhostUserMessage answer) { return have_config(std::move(answer)); }));
}

Result<void> VhostUserDevice::have_config(VhostUserMessage answer) {
  peer_->config_asked = false;
  auto now = TRY(vhost_user_config_of(answer, info().config.size()));
  if (!now) complain("the vhost-user back-end does not tell its configuration");
  const bool again = std::exchange(peer_->config_changed_again, false);
  // What is older than a write of the driver is not told: the answer to that comes.
  if (!again && waiting_writes_.writes.empty()) tell_config(now ? std::move(*now) : config());
  flush_config();
  if (again) ask_config();
  return {};
}

}  // namespace crosvm
