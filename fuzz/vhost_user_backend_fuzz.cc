// A hostile vhost-user back-end against our front-end. The first bytes are what it says of itself
// in the handshake; then each step is a verb of the driver, or something that the back-end does:
// answers as it should or not, sends bytes of its own, makes requests, goes away, is replaced.

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/log.h"
#include "hostile_device.h"
#include "message_count.h"
#include "vhost/vhost_user_backend.h"
#include "vhost/vhost_user_channel.h"
#include "virtio/rig/rig_memory.h"

namespace crosvm {
namespace {

constexpr size_t kConfig = 8;
constexpr uint16_t kQueues = 2;

std::vector<uint64_t> shared_sizes() { return {0, 0x40000, 0x10000}; }

VhostUserMessage shared_memory_config() {
  VhostUserMessage answer = vhost_user_message(VHOST_USER_GET_SHMEM_CONFIG);
  answer.flags = kVhostUserReply;
  answer.add(VhostUserShmemHeader{.num_regions = 2, .padding = 0});
  for (const uint64_t size : shared_sizes()) answer.add(size);
  return answer;
}

/// Holds the front-end to what it promises of the places that it shows.
class Places : public SharedMemoryListener {
 public:
  Result<void> map(const SharedPlace& place, SharedFile file) override {
    const std::vector<uint64_t> sizes = shared_sizes();
    CHECK(place.id < sizes.size() && place.length > 0 && file.file);
    CHECK(place.offset <= sizes[place.id] && place.length <= sizes[place.id] - place.offset);
    for (const SharedPlace& other : all_) {
      CHECK(other.id != place.id || other.offset + other.length <= place.offset ||
            place.offset + place.length <= other.offset);
    }
    if (file.offset == 0x1000) return fail(Error::invalid("not this one"));
    all_.push_back(place);
    return {};
  }
  void unmap(const SharedPlace& place) override { CHECK(std::erase(all_, place) == 1); }
  bool empty() const { return all_.empty(); }

 private:
  std::vector<SharedPlace> all_;
};

struct DeafListener : BackendListener {
  void config_changed(std::vector<std::byte> config) override { CHECK(config.size() == kConfig); }
  void needs_reset() override {}
};

/// The back-end's end of a connection.
class HostilePeer {
 public:
  /// Returns the front-end's end.
  static std::pair<HostilePeer, Fd> create() {
    std::array<int, 2> pair{};
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()) == 0);
    return {HostilePeer(Fd(pair[0])), Fd(pair[1])};
  }

  void send(VhostUserMessage message) { (void)channel_->send(std::move(message)); }
  void send_bytes(const Fd& to, std::span<const std::byte> bytes) const {
    (void)::send(to.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  const Fd& socket() const { return channel_->socket(); }
  const Fd* requests() const { return requests_ ? &*requests_ : nullptr; }
  /// Its end of the pipe for its state, if there is one.
  Fd& state() { return state_; }
  void close() { channel_.reset(); }
  bool open() const { return channel_.has_value(); }

  /// Answers what has come; `mangle` has its way with each answer.
  template <class Mangle>
  void answer_all(Mangle mangle) {
    while (open()) {
      auto message = channel_->receive();
      if (!message) return close();
      if (!*message) return;
      if ((*message)->request == VHOST_USER_SET_BACKEND_REQ_FD && !(*message)->fds.empty()) {
        requests_ = std::move((*message)->fds.front());
      }
      if ((*message)->request == VHOST_USER_SET_DEVICE_STATE_FD && !(*message)->fds.empty()) {
        state_ = std::move((*message)->fds.front());
      }
      if (auto answer = answer_to(**message)) {
        mangle(*answer);
        send(std::move(*answer));
      }
    }
  }

  uint64_t features = 0;
  uint64_t protocol_features = 0;

 private:
  explicit HostilePeer(Fd socket) : channel_(std::in_place, std::move(socket)) {}

  std::optional<VhostUserMessage> answer_to(const VhostUserMessage& message) const {
    VhostUserMessage answer = vhost_user_message(message.request);
    answer.flags = kVhostUserReply;
    switch (message.request) {
      case VHOST_USER_GET_FEATURES:
        answer.add(features);
        break;
      case VHOST_USER_GET_PROTOCOL_FEATURES:
        answer.add(protocol_features);
        break;
      case VHOST_USER_GET_QUEUE_NUM:
      case VHOST_USER_GET_MAX_MEM_SLOTS:
        answer.add(uint64_t{kQueues});
        break;
      case VHOST_USER_GET_STATUS:
      case VHOST_USER_CHECK_DEVICE_STATE:
        answer.add(uint64_t{0});
        break;
      case VHOST_USER_SET_DEVICE_STATE_FD:
        answer.add(kVhostUserVringNoFd);
        break;
      case VHOST_USER_GET_SHMEM_CONFIG:
        return shared_memory_config();
      case VHOST_USER_GET_VRING_BASE:
      case VHOST_USER_GET_CONFIG:
      case VHOST_USER_GET_INFLIGHT_FD:
        answer.payload = message.payload;
        break;
      default:
        if (!message.needs_reply()) return {};
        answer.add(uint64_t{0});
    }
    return answer;
  }

  std::optional<VhostUserChannel> channel_;
  std::optional<Fd> requests_;
  Fd state_;
};

class Play {
 public:
  explicit Play(FuzzInput& input) : input_(input), loop_(std::move(*EventLoop::create())) {}

  void run() {
    if (!start()) return;
    backend_->set_listener(&listener_);
    while (!input_.empty()) {
      step();
      turn();
    }
    // Whatever was, nobody waits in the end.
    peer_->close();
    turn();
    backend_->give_up();
    turn();
    CHECK(done_ == asked_);
    CHECK(places_.empty());
    backend_->set_listener(nullptr);
    backend_.reset();
    turn();
  }

 private:
  template <class T>
  T take() {
    T value{};
    input_.fill(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void turn() {
    for (int i = 0; i < 3; ++i) CHECK(loop_->run_once(EventLoop::Clock::duration(0)).has_value());
  }
  std::vector<std::byte> some_bytes() {
    std::vector<std::byte> bytes(input_.byte());
    input_.fill(bytes);
    return bytes;
  }

  void describe(HostilePeer& peer) {
    peer.features = take<uint64_t>() | vhost_user_bit(32);
    peer.protocol_features = take<uint32_t>();
  }
  /// Good answers to a handshake, before it is asked: it is done on this thread.
  bool start() {
    auto [peer, ours] = HostilePeer::create();
    peer_ = std::make_unique<HostilePeer>(std::move(peer));
    describe(*peer_);
    const uint8_t how = input_.byte();
    const bool own_config = (how & 0x80) != 0;
    const uint8_t bad = how & 0x7f;
    auto say = [&, place = 0](uint32_t request, uint64_t value) mutable {
      auto answer = vhost_user_message(request, ++place == bad ? take<uint64_t>() : value);
      answer.flags = kVhostUserReply;
      peer_->send(std::move(answer));
    };
    const auto has = [&](unsigned feature) {
      return (peer_->protocol_features & vhost_user_bit(feature)) != 0;
    };
    say(VHOST_USER_GET_FEATURES, peer_->features);
    if ((peer_->features & vhost_user_bit(kVhostUserProtocolFeatures)) != 0) {
      say(VHOST_USER_GET_PROTOCOL_FEATURES, peer_->protocol_features);
      if (has(VHOST_USER_PROTOCOL_F_BACKEND_REQ) && has(VHOST_USER_PROTOCOL_F_REPLY_ACK)) {
        say(VHOST_USER_SET_BACKEND_REQ_FD, 0);
      }
      if (has(VHOST_USER_PROTOCOL_F_MQ)) say(VHOST_USER_GET_QUEUE_NUM, kQueues);
      if (has(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) say(VHOST_USER_GET_MAX_MEM_SLOTS, 32);
      const bool shares =
          has(VHOST_USER_PROTOCOL_F_SHMEM) || has(VHOST_USER_PROTOCOL_F_SHMEM_OTHER);
      if (shares && has(VHOST_USER_PROTOCOL_F_BACKEND_REQ)) peer_->send(shared_memory_config());
      if (has(VHOST_USER_PROTOCOL_F_CONFIG) && !own_config) say_config();
    }
    // What is missing now never comes.
    if (bad != 0) ::shutdown(peer_->socket().get(), SHUT_WR);
    VhostUserOptions options{.name = "fuzz",
                             .device_type = 0xffff,
                             .max_queue_size = 64,
                             .config_length = kConfig,
                             .shared_memory = &places_,
                             .patience = std::chrono::minutes(10),
                             .disconnected = [](const Error&) { return AfterLoss::kAwaitAnother; }};
    if (own_config) {
      options.own_config = OwnDeviceConfig{.features = 0x21,
                                           .present = std::vector<std::byte>(kConfig),
                                           .absent = std::vector<std::byte>(kConfig, std::byte(1))};
      options.disconnected = [](const Error&) { return AfterLoss::kGoOnWithout; };
    }
    auto made = VhostUserBackend::create(*loop_, std::move(ours), std::move(options));
    if (!made || (*made)->info().queue_sizes.empty()) return false;
    backend_ = std::move(*made);
    turn();
    return true;
  }
  void say_config() {
    auto answer = vhost_user_message(VHOST_USER_GET_CONFIG,
                                     VhostUserConfigHeader{.offset = 0, .size = kConfig});
    answer.flags = kVhostUserReply;
    answer.payload.resize(sizeof(VhostUserConfigHeader) + kConfig);
    peer_->send(std::move(answer));
  }

  void step() {
    switch (const uint8_t what = input_.byte(); what % 14) {
      case 0:
        return set_up(input_.byte() % 3);
      case 1:
        ++asked_;
        return backend_->get_vring_base(input_.byte() % 3, [this](RingPosition) { ++done_; });
      case 2:
        ++asked_;
        return backend_->reset([this] { ++done_; });
      case 3:
        return backend_->set_config(input_.byte() % 16, some_bytes());
      case 4:
        return backend_->set_features(take<uint64_t>());
      case 5:
      case 6:
        return peer_->answer_all([](VhostUserMessage&) {});
      case 7:
        return peer_->answer_all([this](VhostUserMessage& answer) { mangle(answer); });
      case 8:
        count_message();
        if (peer_->open()) peer_->send_bytes(peer_->socket(), some_bytes());
        return;
      case 9:
        return request();
      case 10:
        if (what < 128) return backend_->set_vring_enable(input_.byte() % 3, what % 2 == 0);
        return peer_->close();
      case 11:
        return replace();
      case 12:
        ++asked_;
        if (what < 128) {
          return backend_->save_state([this](Result<std::vector<std::byte>>) { ++done_; });
        }
        return backend_->load_state(some_bytes(), [this](Result<void>) { ++done_; });
      default:
        return use_state_pipe();
    }
  }
  /// Writes to the pipe, which may be the wrong end, and perhaps closes it.
  void use_state_pipe() {
    if (!peer_->state()) return;
    count_message();
    const uint8_t how = input_.byte();
    auto bytes = some_bytes();
    const int flags = ::fcntl(peer_->state().get(), F_GETFL);
    CHECK(::fcntl(peer_->state().get(), F_SETFL, flags | O_NONBLOCK) == 0);
    (void)!::write(peer_->state().get(), bytes.data(), bytes.size());
    (void)!::read(peer_->state().get(), bytes.data(), bytes.size());
    if (how % 2 == 0) peer_->state() = {};
  }
  void set_up(uint16_t queue) {
    static const RigMemory memory;
    backend_->set_memory(memory.guest());
    backend_->set_vring_num(queue, static_cast<uint16_t>(1 << input_.byte() % 8));
    backend_->set_vring_addr(queue, {GuestAddress{input_.byte() * uint64_t{0x1000}},
                                     GuestAddress{input_.byte() * uint64_t{0x1000}},
                                     GuestAddress{input_.byte() * uint64_t{0x1000}}});
    backend_->set_vring_kick(queue, std::move(*make_eventfd()));
    backend_->set_vring_call(queue, std::move(*make_eventfd()));
    backend_->set_vring_enable(queue, true);
  }
  void mangle(VhostUserMessage& answer) {
    count_message();
    const uint8_t how = input_.byte();
    if (how % 4 == 0) answer.payload = some_bytes();
    if (how % 8 == 1) answer.request = input_.byte();
    if (how % 8 == 2) answer.flags = input_.byte();
    if (how % 4 == 3 && !answer.payload.empty()) {
      answer.payload[input_.byte() % answer.payload.size()] ^= std::byte{input_.byte()};
    }
    for (int i = 0; i < how / 64; ++i) answer.fds.push_back(std::move(*make_eventfd()));
  }
  void request() {
    if (!peer_->requests()) return;
    count_message();
    if (input_.byte() % 2 == 0) return map_or_unmap();
    const VhostUserHeader header{
        .request = input_.byte() % 12u, .flags = kVhostUserVersion | input_.byte(), .size = 0};
    peer_->send_bytes(*peer_->requests(), std::as_bytes(std::span(&header, 1)));
    peer_->send_bytes(*peer_->requests(), some_bytes());
  }
  void map_or_unmap() {
    const uint8_t how = input_.byte();
    VhostUserMmap place{.shmid = static_cast<uint8_t>(input_.byte() % 4),
                        .fd_offset = how & 0x10 ? uint64_t{0x1000} : 0,
                        .shm_offset = input_.byte() % 80 * uint64_t{0x1000},
                        .length = input_.byte() % 8 * uint64_t{0x1000},
                        .flags = how >> 3 & 1u};
    if (how % 4 == 3) place.length = take<uint64_t>();
    if (how % 8 == 6) place.shm_offset = take<uint64_t>();
    VhostUserMessage message = vhost_user_message(
        how & 0x20 ? VHOST_USER_BACKEND_SHMEM_UNMAP : VHOST_USER_BACKEND_SHMEM_MAP, place);
    message.flags = how & 0x40 ? kVhostUserNeedReply : 0;
    if ((how & 0x20) == 0) message.fds.push_back(std::move(*make_eventfd()));
    if (how & 0x80) message.payload[input_.byte() % message.payload.size()] ^= std::byte{0xff};
    VhostUserChannel channel(std::move(*peer_->requests()->duplicate()));
    (void)channel.send(std::move(message));
  }
  void replace() {
    auto [peer, ours] = HostilePeer::create();
    peer_->close();
    peer_ = std::make_unique<HostilePeer>(std::move(peer));
    describe(*peer_);
    turn();
    ++asked_;
    backend_->reconnect(std::move(ours), [this](Result<void>) { ++done_; });
  }

  FuzzInput& input_;
  std::unique_ptr<EventLoop> loop_;
  DeafListener listener_;
  Places places_;
  std::unique_ptr<HostilePeer> peer_;
  std::unique_ptr<VhostUserBackend> backend_;
  unsigned asked_ = 0;
  unsigned done_ = 0;
};

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  ::signal(SIGPIPE, SIG_IGN);  // as in every process of ours
  (void)crosvm::log::configure({.filter = "off", .use_syslog = false});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  crosvm::FuzzInput input({data, size});
  crosvm::Play(input).run();
  return 0;
}
