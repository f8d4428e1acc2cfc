#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>

#include "vhost/conformance/scripted_peer.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_test_frontend.h"
#include "vhost/vhost_user_back_channel.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/rig/window_device.h"
#include "virtio/ring_abi.h"

// Shared memory regions of a device behind vhost-user, from the device to who shows them.

namespace crosvm {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const auto kPage = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
constexpr uint64_t kFeatures = uint64_t{1} << VIRTIO_F_VERSION_1;
constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }

Fd make_file() {
  Fd file(::memfd_create("window", MFD_CLOEXEC));
  CHECK(file && ::ftruncate(file.get(), static_cast<off_t>(16 * kPage)) == 0);
  return file;
}

/// Regions 1 and 2, of 16 and 4 pages.
std::vector<uint64_t> sizes() { return {0, 16 * kPage, 4 * kPage}; }

// ---- the server

class Frontend : public VhostTestFrontend {
 public:
  explicit Frontend(bool with_channel = true)
      : VhostTestFrontend({}, [](EchoOptions, DeviceContext context) {
          return std::make_unique<WindowDevice>(sizes(), make_file(), std::move(context));
        }) {
    negotiate(kFeatures);
    if (!with_channel) return;
    auto [ours, theirs] = socket_pair();
    requests.emplace(std::move(ours));
    CHECK(ack(VHOST_USER_SET_BACKEND_REQ_FD, std::move(theirs)));
  }
  bool ack(uint32_t request, Fd fd) {
    VhostUserMessage message = vhost_user_message(request);
    message.fds.push_back(std::move(fd));
    return VhostTestFrontend::ack(std::move(message));
  }
  void write(const WindowCommand& command) {
    VhostUserMessage message = vhost_user_message(
        VHOST_USER_SET_CONFIG, VhostUserConfigHeader{.offset = 0, .size = 8, .flags = 0});
    message.add(command.bytes());
    send(std::move(message));
    turn();
  }
  WindowCommand read() {
    VhostUserMessage message = vhost_user_message(
        VHOST_USER_GET_CONFIG, VhostUserConfigHeader{.offset = 0, .size = 8, .flags = 0});
    message.payload.resize(sizeof(VhostUserConfigHeader) + 8);
    send(std::move(message));
    const auto answer = receive();
    CHECK(answer && answer->payload.size() == sizeof(VhostUserConfigHeader) + 8);
    WindowCommand command;
    std::memcpy(&command, answer->payload.data() + sizeof(VhostUserConfigHeader), 8);
    return command;
  }
  /// What the device asks for; CONFIG_CHANGE_MSG is passed over.
  std::optional<VhostUserMessage> asked() {
    for (int i = 0; i < 10; ++i) {
      turn();
      auto message = must(requests->receive());
      if (message && message->request != VHOST_USER_BACKEND_CONFIG_CHANGE_MSG) return message;
    }
    return {};
  }
  void answer(uint32_t request, uint64_t value) {
    auto message = vhost_user_message(request, value);
    message.flags = kVhostUserReply;
    CHECK(requests->send(std::move(message)));
    turn();
  }
  std::optional<VhostUserChannel> requests;
};

WindowCommand map(uint8_t id, uint8_t page, uint8_t pages, uint8_t file_page = 0) {
  return {.what = WindowCommand::kMap,
          .id = id,
          .page = page,
          .pages = pages,
          .file_page = file_page,
          .writable = 1};
}

WindowCommand unmap(uint8_t id, uint8_t page, uint8_t pages) {
  WindowCommand command = map(id, page, pages);
  command.what = WindowCommand::kUnmap;
  return command;
}

TEST(VhostUserServerSharedMemory, TellsTheRegions) {
  Frontend frontend;
  frontend.send(vhost_user_message(VHOST_USER_GET_SHMEM_CONFIG));
  const auto answer = frontend.receive();
  ASSERT_TRUE(answer);
  ASSERT_EQ(answer->payload.size(), 2056u);
  VhostUserShmemHeader header;
  std::memcpy(&header, answer->payload.data(), sizeof(header));
  EXPECT_EQ(header.num_regions, 2u);
  std::array<uint64_t, 4> told{};
  std::memcpy(told.data(), answer->payload.data() + sizeof(header), sizeof(told));
  EXPECT_THAT(told, ElementsAre(0, 16 * kPage, 4 * kPage, 0));
}

TEST(VhostUserServerSharedMemory, IsOfferedByDevicesThatHaveIt) {
  VhostTestFrontend frontend(EchoOptions{});
  frontend.negotiate(kFeatures);
  EXPECT_EQ(*frontend.ask(VHOST_USER_GET_PROTOCOL_FEATURES) & bit(VHOST_USER_PROTOCOL_F_SHMEM), 0u);
  EXPECT_FALSE(frontend.ack(vhost_user_message(VHOST_USER_GET_SHMEM_CONFIG)));
}

TEST(VhostUserServerSharedMemory, AsksTheFrontEnd) {
  Frontend frontend;
  frontend.write(map(1, 2, 3, 4));
  const auto asked = frontend.asked();
  ASSERT_TRUE(asked);
  EXPECT_EQ(asked->request, uint32_t{VHOST_USER_BACKEND_SHMEM_MAP});
  EXPECT_TRUE(asked->needs_reply());
  EXPECT_EQ(asked->fds.size(), 1u);
  const auto place = asked->payload_as<VhostUserMmap>();
  ASSERT_TRUE(place);
  EXPECT_EQ(place->shmid, 1u);
  EXPECT_EQ(place->shm_offset, 2 * kPage);
  EXPECT_EQ(place->length, 3 * kPage);
  EXPECT_EQ(place->fd_offset, 4 * kPage);
  EXPECT_EQ(place->flags, kVhostUserMmapWritable);
  EXPECT_EQ(frontend.read().result, WindowCommand::kPending);
  frontend.answer(VHOST_USER_BACKEND_SHMEM_MAP, 0);
  EXPECT_EQ(frontend.read().result, WindowCommand::kDone);

  frontend.write(unmap(1, 2, 3));
  ASSERT_TRUE(frontend.asked());
  frontend.answer(VHOST_USER_BACKEND_SHMEM_UNMAP, 22);
  EXPECT_EQ(frontend.read().result, WindowCommand::kFailed) << "the front-end refused";
}

TEST(VhostUserServerSharedMemory, DoesWithoutAcknowledgements) {
  Frontend frontend;
  frontend.send(VHOST_USER_SET_PROTOCOL_FEATURES, bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
                                                      bit(VHOST_USER_PROTOCOL_F_SHMEM) |
                                                      bit(VHOST_USER_PROTOCOL_F_CONFIG));
  frontend.write(map(1, 0, 1));
  const auto asked = frontend.asked();
  ASSERT_TRUE(asked);
  EXPECT_FALSE(asked->needs_reply());
  EXPECT_EQ(frontend.read().result, WindowCommand::kDone);
}

TEST(VhostUserServerSharedMemory, AFrontEndThatLiesEndsTheChannelAlone) {
  for (int how = 0; how < 4; ++how) {
    Frontend frontend;
    frontend.write(map(1, 0, 1));
    ASSERT_TRUE(frontend.asked());
    if (how == 0) frontend.requests.reset();
    if (how == 1) frontend.answer(VHOST_USER_BACKEND_SHMEM_UNMAP, 0);
    if (how == 2) {
      ASSERT_TRUE(
          frontend.requests->send(vhost_user_message(VHOST_USER_BACKEND_SHMEM_MAP, uint64_t{0})));
    }
    if (how == 3) {
      auto answer = vhost_user_message(VHOST_USER_BACKEND_SHMEM_MAP, uint32_t{0});
      answer.flags = kVhostUserReply;
      ASSERT_TRUE(frontend.requests->send(std::move(answer)));
    }
    frontend.turn();
    EXPECT_EQ(frontend.read().result, WindowCommand::kFailed) << how;
    EXPECT_TRUE(frontend.gone().empty());
    if (how == 3) continue;  // a refusal
    frontend.write(map(1, 0, 1));
    EXPECT_EQ(frontend.read().result, WindowCommand::kFailed) << how;
  }
}

TEST(VhostUserServerSharedMemory, AFrontEndThatNeverAnswersIsAskedNoMore) {
  Frontend frontend;
  for (size_t i = 0; i < VhostUserBackChannel::kMostWaiting; ++i) {
    frontend.write(map(1, static_cast<uint8_t>(i), 1));
    EXPECT_EQ(frontend.read().result, WindowCommand::kPending);
  }
  frontend.write(map(1, 0, 1));
  EXPECT_EQ(frontend.read().result, WindowCommand::kFailed);
  frontend.disconnect();
  frontend.turn();
  frontend.connect();
  frontend.negotiate(kFeatures);
  frontend.write(map(1, 0, 1));
  EXPECT_EQ(frontend.read().result, WindowCommand::kFailed) << "there is no channel";
}

// ---- the front-end

/// Shows what it is told to, and can be asked from any thread.
class Shown : public SharedMemoryListener, public BackendListener {
 public:
  Result<void> map(const SharedPlace& place, SharedFile file) override {
    std::lock_guard lock(mutex_);
    places_.push_back(place);
    last_ = std::move(file);
    return {};
  }
  void unmap(const SharedPlace& place) override {
    std::lock_guard lock(mutex_);
    std::erase(places_, place);
  }
  void config_changed(std::vector<std::byte> config) override {
    std::lock_guard lock(mutex_);
    if (config.size() == sizeof(config_)) std::memcpy(&config_, config.data(), sizeof(config_));
    changed_.notify_all();
  }
  void needs_reset() override {}

  std::vector<SharedPlace> places() {
    std::lock_guard lock(mutex_);
    return places_;
  }
  SharedFile last() {
    std::lock_guard lock(mutex_);
    return std::move(last_);
  }
  /// What became of the command of this number.
  WindowCommand::Result result(uint8_t number) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, 20s, [&] {
      return config_.number == number && config_.result != WindowCommand::kPending;
    }));
    return static_cast<WindowCommand::Result>(config_.result);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<SharedPlace> places_;  // guarded by mutex_, as are:
  SharedFile last_;
  WindowCommand config_;
};

VhostUserOptions options(SharedMemoryListener* shown) {
  return {.name = "window0",
          .device_type = 0xffff,
          .max_queue_size = 16,
          .config_length = 8,
          .shared_memory = shown};
}

/// Our front-end and our server.
class EndToEnd : public testing::Test {
 protected:
  EndToEnd() {
    auto [ours, theirs] = socket_pair();
    server_.emplace(std::move(theirs), open_window(sizes(), std::move(*file_.duplicate())));
    auto made = VhostUserBackend::create(control_.loop(), std::move(ours), options(&shown_));
    CHECK(made.has_value());
    backend_ = std::move(*made);
    backend_->set_listener(&shown_);
  }
  ~EndToEnd() override {
    if (backend_) backend_->set_listener(nullptr);
  }
  WindowCommand::Result run(WindowCommand command) {
    command.number = ++number_;
    const auto bytes = command.bytes();
    backend_->set_config(0, {bytes.begin(), bytes.end()});
    return shown_.result(number_);
  }
  Fd file_ = make_file();
  LoopThread control_;
  Shown shown_;
  std::optional<EchoServer> server_;
  std::unique_ptr<VhostUserBackend> backend_;
  uint8_t number_ = 0;
};

SharedPlace place(uint8_t id, uint64_t page, uint64_t pages) {
  return {.id = id, .offset = page * kPage, .length = pages * kPage};
}

TEST_F(EndToEnd, MapsAndUnmaps) {
  EXPECT_EQ(backend_->info().shared_memory, sizes());
  ASSERT_EQ(run(map(1, 2, 3, 4)), WindowCommand::kDone);
  const SharedFile file = shown_.last();
  EXPECT_TRUE(file.writable);
  ASSERT_EQ(file.offset, 4 * kPage);
  // The device's own file.
  ASSERT_EQ(::pwrite(file_.get(), "hello", 5, static_cast<off_t>(file.offset)), 5);
  std::array<char, 5> seen{};
  ASSERT_EQ(::pread(file.file.get(), seen.data(), 5, static_cast<off_t>(file.offset)), 5);
  EXPECT_EQ(std::string_view(seen.data(), 5), "hello");

  EXPECT_EQ(run(map(1, 4, 1)), WindowCommand::kFailed) << "something is there";
  EXPECT_EQ(run(map(1, 15, 2)), WindowCommand::kFailed) << "past the end";
  EXPECT_EQ(run(map(0, 0, 1)), WindowCommand::kFailed) << "no such region";
  EXPECT_EQ(run(map(2, 0, 4)), WindowCommand::kDone);
  EXPECT_THAT(shown_.places(), ElementsAre(place(1, 2, 3), place(2, 0, 4)));
  EXPECT_EQ(run(unmap(1, 2, 2)), WindowCommand::kFailed) << "a part";
  EXPECT_EQ(run(unmap(1, 2, 3)), WindowCommand::kDone);
  EXPECT_THAT(shown_.places(), ElementsAre(place(2, 0, 4)));
}

TEST_F(EndToEnd, AResetUnmaps) {
  ASSERT_EQ(run(map(1, 0, 1)), WindowCommand::kDone);
  std::promise<void> done;
  backend_->reset([&] { done.set_value(); });
  done.get_future().wait();
  EXPECT_THAT(shown_.places(), IsEmpty());
  EXPECT_EQ(run(map(1, 0, 1)), WindowCommand::kDone);
}

TEST_F(EndToEnd, NothingIsLeftOfABackend) {
  ASSERT_EQ(run(map(1, 0, 1)), WindowCommand::kDone);
  backend_->set_listener(nullptr);
  backend_.reset();
  EXPECT_THAT(shown_.places(), IsEmpty());
}

/// A back-end of which the test is the device.
struct Talk {
  explicit Talk(ScriptedPeer::Script script, bool shows = true, uint64_t more = 0) {
    script.protocol_features |= more;
    auto [ours, theirs] = socket_pair();
    peer.emplace(std::move(theirs), std::move(script));
    VhostUserOptions wanted = options(shows ? &shown : nullptr);
    wanted.disconnected = [this](const Error&) {
      lost.set_value();
      return AfterLoss::kGiveUp;
    };
    made = VhostUserBackend::create(control.loop(), std::move(ours), std::move(wanted));
    if (!made) return;
    auto socket = peer->take_requests();
    CHECK(socket);
    requests.emplace(std::move(*socket));
  }
  /// What is answered.
  uint64_t ask(uint32_t request, const VhostUserMmap& place, size_t fds) {
    VhostUserMessage message = vhost_user_message(request, place);
    for (size_t i = 0; i < fds; ++i) message.fds.push_back(make_file());
    return ask(std::move(message));
  }
  uint64_t ask(VhostUserMessage message) {
    message.flags = kVhostUserNeedReply;
    const auto answer = requests->call(std::move(message), VhostUserChannel::Clock::now() + 20s);
    CHECK(answer);
    return answer->payload_as<uint64_t>().value();
  }
  uint64_t map(const VhostUserMmap& place) { return ask(VHOST_USER_BACKEND_SHMEM_MAP, place, 1); }
  uint64_t accepted() { return peer->last_value(VHOST_USER_SET_PROTOCOL_FEATURES); }
  std::string error() const { return made ? "" : made.error().what(); }

  Shown shown;
  std::promise<void> lost;
  LoopThread control;
  std::optional<ScriptedPeer> peer;
  Result<std::unique_ptr<VhostUserBackend>> made = fail(Error::invalid("not made"));
  std::optional<VhostUserChannel> requests;
};

constexpr uint64_t kShmem = bit(VHOST_USER_PROTOCOL_F_SHMEM);
constexpr uint64_t kOther = bit(VHOST_USER_PROTOCOL_F_SHMEM_OTHER);

TEST(VhostUserBackendSharedMemory, IsAskedForByItsNumbers) {
  const auto accepted = [](uint64_t offered, bool shows = true) {
    Talk talk({.shared_memory = {kPage}}, shows, offered);
    CHECK(talk.made.has_value());
    EXPECT_EQ((*talk.made)->info().shared_memory.size(),
              shows && offered != 0 ? size_t{1} : size_t{0});
    return talk.accepted() & (kShmem | kOther);
  };
  EXPECT_EQ(accepted(kShmem), kShmem);
  EXPECT_EQ(accepted(kOther), kOther);
  EXPECT_EQ(accepted(kShmem | kOther), kShmem);
  EXPECT_EQ(accepted(0), 0u);
  EXPECT_EQ(accepted(kShmem | kOther, false), 0u) << "nobody shows it";
}

TEST(VhostUserBackendSharedMemory, ABackEndThatLiesIsRefused) {
  Talk talk({.shared_memory = sizes()}, true, kShmem);
  ASSERT_TRUE(talk.made.has_value());
  const VhostUserMmap good{.shmid = 1, .shm_offset = kPage, .length = kPage};
  const auto with = [&](auto change) {
    VhostUserMmap other = good;
    change(other);
    return talk.map(other);
  };
  EXPECT_NE(with([](VhostUserMmap& m) { m.shmid = 0; }), 0u);
  EXPECT_NE(with([](VhostUserMmap& m) { m.shmid = 200; }), 0u);
  EXPECT_NE(with([](VhostUserMmap& m) { m.length = 16 * kPage; }), 0u);
  EXPECT_NE(with([](VhostUserMmap& m) { m.length = 0; }), 0u);
  EXPECT_NE(with([](VhostUserMmap& m) { m.length = -kPage; }), 0u);
  EXPECT_NE(with([](VhostUserMmap& m) { m.shm_offset = 7; }), 0u);
  EXPECT_NE(with([](VhostUserMmap& m) { m.shm_offset = -kPage; }), 0u);
  EXPECT_NE(with([](VhostUserMmap& m) { m.fd_offset = 7; }), 0u);
  EXPECT_NE(with([](VhostUserMmap& m) { m.fd_offset = -kPage; }), 0u);
  EXPECT_NE(with([](VhostUserMmap& m) { m.flags = 2; }), 0u);
  EXPECT_NE(talk.ask(VHOST_USER_BACKEND_SHMEM_MAP, good, 0), 0u);
  EXPECT_NE(talk.ask(VHOST_USER_BACKEND_SHMEM_MAP, good, 2), 0u);
  EXPECT_NE(talk.ask(VHOST_USER_BACKEND_SHMEM_UNMAP, good, 0), 0u);
  VhostUserMessage shorter = vhost_user_message(VHOST_USER_BACKEND_SHMEM_MAP, uint64_t{1});
  EXPECT_NE(talk.ask(std::move(shorter)), 0u);
  EXPECT_THAT(talk.shown.places(), IsEmpty());

  EXPECT_EQ(talk.map(good), 0u);
  EXPECT_NE(talk.map(good), 0u) << "twice";
  EXPECT_NE(with([](VhostUserMmap& m) { m.shm_offset = 0, m.length = 2 * kPage; }), 0u);
  EXPECT_FALSE(talk.shown.last().writable);
  EXPECT_THAT(talk.shown.places(), ElementsAre(place(1, 1, 1)));
  EXPECT_EQ(talk.ask(VHOST_USER_BACKEND_SHMEM_UNMAP, good, 0), 0u);
  EXPECT_EQ(talk.map(good), 0u);
  talk.peer->close();
  talk.lost.get_future().wait();
  EXPECT_THAT(talk.shown.places(), IsEmpty()) << "with it goes what it mapped";
}

TEST(VhostUserBackendSharedMemory, ManyRequestsAreServedSoonButNotAtOnce) {
  Talk talk({.shared_memory = sizes()}, true, kShmem);
  ASSERT_TRUE(talk.made.has_value());
  const VhostUserMmap good{.shmid = 1, .shm_offset = 0, .length = kPage};
  for (int i = 0; i < 1500; ++i) {
    ASSERT_EQ(talk.map(good), 0u);
    ASSERT_EQ(talk.ask(VHOST_USER_BACKEND_SHMEM_UNMAP, good, 0), 0u);
  }
}

TEST(VhostUserBackendSharedMemory, WithoutItTheRequestsAreUnknown) {
  Talk talk({.shared_memory = sizes()}, false, kShmem);
  ASSERT_TRUE(talk.made.has_value());
  EXPECT_NE(talk.map({.shmid = 1, .shm_offset = 0, .length = kPage}), 0u);
}

TEST(VhostUserBackendSharedMemory, RegionsThatCannotBeAreRefused) {
  const auto error = [](std::vector<uint64_t> told) {
    return Talk({.shared_memory = std::move(told)}, true, kShmem).error();
  };
  EXPECT_EQ(error({}), "");
  EXPECT_EQ(error(std::vector<uint64_t>(256)), "");
  EXPECT_THAT(error(std::vector<uint64_t>(257)), HasSubstr("257 shared memory regions"));
  EXPECT_THAT(error({kPage, 100}), HasSubstr("a shared memory region of 0x64 bytes"));
  EXPECT_THAT(error({-kPage}), HasSubstr("a shared memory region of 0xf"));
  ScriptedPeer::Script script;
  script.instead = [](ScriptedPeer& peer, const VhostUserMessage& message) {
    if (message.request != VHOST_USER_GET_SHMEM_CONFIG) return false;
    peer.send_message(ScriptedPeer::copy(message, std::vector<std::byte>(4)));
    return true;
  };
  EXPECT_THAT(Talk(script, true, kShmem).error(), HasSubstr("answered with 4 bytes"));
}

}  // namespace
}  // namespace crosvm
