#include "control/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <filesystem>
#include <future>
#include <optional>
#include <thread>

#include "control/client.h"

namespace crosvm::control {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::HasSubstr;

/// A server on a loop of its own thread, and raw clients.
class ServerTest : public testing::Test {
 public:
  ServerTest() {
    std::string name = "/tmp/control_test.XXXXXX";
    directory_ = ::mkdtemp(name.data());
    path_ = directory_ / "vm.sock";
  }
  ~ServerTest() override {
    stop();
    fs::remove_all(directory_);
  }

 protected:
  /// Stops the loop at the end of its scope: a handler uses what stands before it in the test.
  struct Running {
    explicit Running(ServerTest& test) : test(test) {}
    Running(const Running&) = delete;
    ~Running() { test.stop(); }
    ServerTest& test;
  };

  [[nodiscard]] Running start(Server::Handler handler, Server::Options options = {}) {
    Listener listener = Listener::open(path_).value();
    listener_number_ = listener.fd().get();
    auto server = Server::create(*loop_, std::move(listener), std::move(handler), options);
    server_ = std::move(server.value());
    thread_ = std::thread([this] { ASSERT_TRUE(loop_->run()); });
    return Running(*this);
  }
  void stop() {
    if (!thread_.joinable()) return;
    loop_->stop();
    thread_.join();
    server_.reset();
  }
  /// Runs `work` on the loop and waits for it.
  void on_loop(std::function<void()> work) {
    std::promise<void> done;
    loop_->post([&] { work(), done.set_value(); });
    done.get_future().wait();
  }
  size_t connections() {
    size_t count = 0;
    on_loop([&] { count = server_->connection_count(); });
    return count;
  }

  /// Whether it comes to this many connections, in a time that is ample.
  bool comes_to(size_t count) {
    for (int i = 0; i < 5000 && connections() != count; ++i) std::this_thread::sleep_for(1ms);
    return connections() == count;
  }

  PacketSocket client() const {
    PacketSocket socket = connect(path_).value();
    timeval ample{.tv_sec = 20, .tv_usec = 0};  // a lost answer fails the test
    EXPECT_EQ(::setsockopt(socket.fd().get(), SOL_SOCKET, SO_RCVTIMEO, &ample, sizeof(ample)), 0);
    return socket;
  }
  static void say(PacketSocket& socket, std::string text) {
    ASSERT_TRUE(socket.send({.text = std::move(text), .fds = {}}));
  }
  static std::string hear(PacketSocket& socket) {
    auto packet = socket.receive();
    if (!packet) return packet.error().what();
    return *packet ? (*packet)->text : "closed";
  }

  /// Answers Gpe N with Err N, everything else with Ok.
  static void echo(Request request, Reply reply) {
    auto* gpe = std::get_if<Gpe>(&request);
    if (gpe == nullptr) return reply(response::Ok());
    reply(response::Err{static_cast<int32_t>(gpe->gpe)});
  }
  static std::string gpe(int number) { return R"({"Gpe":{"gpe":)" + std::to_string(number) + "}}"; }
  static std::string err(int number) { return R"({"Err":)" + std::to_string(number) + "}"; }

  fs::path directory_;
  std::string path_;
  std::unique_ptr<EventLoop> loop_ = std::move(EventLoop::create().value());
  std::unique_ptr<Server> server_;
  std::thread thread_;
  int listener_number_ = -1;
};

TEST_F(ServerTest, AnswersEachRequestInOrder) {
  Running running = start(echo);
  PacketSocket socket = client();
  for (int i = 0; i < 100; ++i) say(socket, gpe(i));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(hear(socket), err(i));
}

TEST_F(ServerTest, MalformedRequestsGetNoAnswerAndTheConnectionGoesOn) {
  Running running = start(echo);
  PacketSocket socket = client();
  for (const char* text : {"", "{", "{\"Gpe\":{\"gpe\":", "\"Unknown\"", "\"\xff\"", "[]"}) {
    say(socket, text);
  }
  say(socket, gpe(7));
  EXPECT_EQ(hear(socket), err(7));
}

TEST_F(ServerTest, FloodOfMalformedRequestsDoesNotFloodTheLog) {
  testing::internal::CaptureStderr();
  Running running = start(echo);
  PacketSocket socket = client();
  for (int i = 0; i < 1000; ++i) say(socket, "{");
  say(socket, gpe(7));
  EXPECT_EQ(hear(socket), err(7));
  stop();
  std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("control request: not valid JSON"));
  EXPECT_LT(std::count(log.begin(), log.end(), '\n'), 500);
}

TEST_F(ServerTest, RequestsSentBeforeClosingAreExecuted) {
  std::atomic<int> seen = 0;
  Running running = start([&](Request, Reply reply) { ++seen, reply(response::Ok()); });
  {
    PacketSocket socket = client();
    say(socket, "\"Powerbtn\"");
  }
  while (seen == 0 || connections() != 0) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(seen, 1);
}

TEST_F(ServerTest, DescriptorsReachTheHandlerAndTheClient) {
  Running running = start([](Request request, Reply reply) {
    signal_eventfd(std::get<Rtc>(request).clear_evt);
    reply(response::VmDescriptor{.hypervisor = response::HypervisorKind::kKvm,
                                 .vm_fd = std::move(make_eventfd().value())});
  });
  Fd event = std::move(make_eventfd().value());
  auto response = ask(path_, Rtc{event.duplicate().value()});
  ASSERT_TRUE(response) << response.error().what();
  EXPECT_EQ(drain_eventfd(event), 1u);
  EXPECT_TRUE(std::get<response::VmDescriptor>(*response).vm_fd);
}

TEST_F(ServerTest, LaterRequestsWaitForAnAsynchronousAnswer) {
  std::optional<Reply> pending;
  Running running = start([&](Request request, Reply reply) {
    if (std::holds_alternative<SuspendVcpus>(request)) {
      pending = reply;
    } else {
      echo(std::move(request), reply);
    }
  });
  PacketSocket first = client();
  PacketSocket second = client();
  say(first, "\"SuspendVcpus\"");
  say(first, gpe(1));
  say(second, gpe(2));
  EXPECT_EQ(hear(second), err(2));  // other connections do not wait
  on_loop([&] { std::exchange(pending, std::nullopt).value()(response::Err{EIO}); });
  EXPECT_EQ(hear(first), err(EIO));
  EXPECT_EQ(hear(first), err(1));
}

TEST_F(ServerTest, LateAnswersAreOvertaken) {
  std::optional<Reply> pending;
  Running running = start([&](Request request, Reply reply) {
    if (std::holds_alternative<BalloonCommand>(request)) {
      reply.make_late();
      pending = reply;
    } else {
      echo(std::move(request), reply);
    }
  });
  PacketSocket socket = client();
  say(socket, R"({"BalloonCommand":{"Adjust":{"num_bytes":1,"wait_for_success":true}}})");
  say(socket, gpe(1));
  EXPECT_EQ(hear(socket), err(1));
  on_loop([&] {
    (*pending)(response::Ok());
    (*pending)(response::Err{EIO});  // a second answer is none
    pending.reset();
  });
  say(socket, gpe(2));
  EXPECT_EQ(hear(socket), "\"Ok\"");
  EXPECT_EQ(hear(socket), err(2));
}

TEST_F(ServerTest, AnswerForAClientThatHasGoneIsLogged) {
  testing::internal::CaptureStderr();
  std::optional<Reply> pending;
  Running running = start([&](Request, Reply reply) {
    reply.make_late();
    pending = reply;
  });
  {
    PacketSocket socket = client();
    say(socket, "\"Exit\"");
    while (connections() == 0) std::this_thread::sleep_for(1ms);
  }
  while (connections() != 0) std::this_thread::sleep_for(1ms);
  on_loop([&] { std::exchange(pending, std::nullopt).value()(response::Ok()); });
  stop();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("gone before its answer"));
}

TEST_F(ServerTest, GivenUpAndMuteRequestsDoNotHoldUpTheNext) {
  Running running = start([](Request request, Reply reply) {
    if (std::holds_alternative<MakeRT>(request)) return;
    echo(std::move(request), std::move(reply));
  });
  PacketSocket socket = client();
  say(socket, "\"MakeRT\"");             // the handler lets go of it
  say(socket, R"({"Throttle":[0,1]})");  // the handler answers Ok, which must not be sent
  say(socket, gpe(3));
  EXPECT_EQ(hear(socket), err(3));
}

TEST_F(ServerTest, LateAnswersOfOneClientAreBounded) {
  std::vector<Reply> pending;
  Running running = start(
      [&](Request, Reply reply) {
        reply.make_late();
        pending.push_back(reply);
      },
      {.max_connections = 0, .max_late = 3});
  PacketSocket socket = client();
  for (int i = 0; i < 10; ++i) say(socket, gpe(i));
  size_t seen = 0;
  while (seen < 3) on_loop([&] { seen = pending.size(); });
  std::this_thread::sleep_for(20ms);
  on_loop([&] { seen = pending.size(); });
  EXPECT_EQ(seen, 3u);
  on_loop([&] { pending[0](response::Ok()); });
  while (seen < 4) on_loop([&] { seen = pending.size(); });
  on_loop([&] { pending.clear(); });  // given up: read on
}

TEST_F(ServerTest, ClientThatNeverReadsHoldsUpNobodyAndIsBounded) {
  std::atomic<size_t> handled = 0;
  Running running = start([&](Request, Reply reply) {
    ++handled;
    reply(response::ErrString{std::string(32 * 1024, 'x')});
  });
  PacketSocket silent = client();
  timeval timeout{.tv_sec = 0, .tv_usec = 200'000};
  ASSERT_EQ(::setsockopt(silent.fd().get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)), 0);
  size_t sent = 0;
  while (sent < 100'000 && silent.send({.text = "\"Exit\"", .fds = {}})) ++sent;
  EXPECT_LT(sent, 100'000u);  // the server stopped reading, so the kernel stopped taking
  EXPECT_LT(handled, 100u);
  EXPECT_TRUE(ask(path_, Exit()));

  size_t answers = 0;  // nothing is lost once it reads
  while (answers < sent && hear(silent).starts_with("{\"ErrString\"")) ++answers;
  EXPECT_EQ(answers, sent);
}

TEST_F(ServerTest, ManyClientsAreServed) {
  Running running = start(echo, {.max_connections = 1000});
  std::vector<PacketSocket> clients;
  for (int i = 0; i < 300; ++i) clients.push_back(client());
  for (int i = 0; i < 300; ++i) say(clients[i], gpe(i));
  for (int i = 0; i < 300; ++i) EXPECT_EQ(hear(clients[i]), err(i));
  EXPECT_EQ(connections(), 300u);
}

TEST_F(ServerTest, IdleClientsGiveWayToANewOneOldestFirst) {
  Running running = start(echo, {.max_connections = 3});
  std::vector<PacketSocket> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(client());
    say(clients[i], gpe(i));
    EXPECT_EQ(hear(clients[i]), err(i));
  }
  say(clients[0], gpe(9));
  EXPECT_EQ(hear(clients[0]), err(9));
  EXPECT_TRUE(ask(path_, Exit()));
  EXPECT_EQ(hear(clients[1]), "closed");  // the one unused longest
  say(clients[0], gpe(5));
  EXPECT_EQ(hear(clients[0]), err(5));
}

TEST_F(ServerTest, AHangUpIsNoticedWhileAnAnswerIsOutstanding) {
  testing::internal::CaptureStderr();
  std::vector<Reply> pending;
  Running running = start([&](Request, Reply reply) { pending.push_back(reply); });
  PacketSocket finished = client();  // with asking, not with listening
  say(finished, "\"Exit\"");
  ASSERT_EQ(::shutdown(finished.fd().get(), SHUT_WR), 0);
  std::optional<PacketSocket> gone = client();
  say(*gone, "\"Exit\"");
  size_t seen = 0;
  while (seen < 2) on_loop([&] { seen = pending.size(); });
  gone.reset();
  EXPECT_TRUE(comes_to(1));
  on_loop([&] {
    for (const Reply& reply : pending) reply(response::Ok());
    pending.clear();
  });
  EXPECT_EQ(hear(finished), "\"Ok\"");
  EXPECT_TRUE(comes_to(0));
  stop();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("gone before its answer"));
}

TEST_F(ServerTest, ClientsThatWaitForAnswersGiveWayWhereNoneIsIdle) {
  std::vector<Reply> pending;
  Running running = start(
      [&](Request request, Reply reply) {
        if (std::holds_alternative<Gpe>(request)) return echo(std::move(request), reply);
        pending.push_back(reply);
      },
      {.max_connections = 3});
  std::vector<PacketSocket> waiting;
  for (size_t i = 1; i <= 2; ++i) {
    waiting.push_back(client());
    say(waiting.back(), "\"Exit\"");
    size_t seen = 0;
    while (seen < i) on_loop([&] { seen = pending.size(); });
  }
  PacketSocket idle = client();
  EXPECT_TRUE(comes_to(3));
  PacketSocket first = client();
  say(first, gpe(1));
  EXPECT_EQ(hear(first), err(1));
  EXPECT_EQ(hear(idle), "closed");  // rather than one that waits, and waits longer
  say(first, "\"Exit\"");
  size_t seen = 0;
  while (seen < 3) on_loop([&] { seen = pending.size(); });

  PacketSocket second = client();
  say(second, gpe(2));
  EXPECT_EQ(hear(second), err(2));
  EXPECT_EQ(hear(waiting[0]), "closed");
  on_loop([&] {
    for (const Reply& reply : pending) reply(response::Ok());
    pending.clear();
  });
  EXPECT_EQ(hear(waiting[1]), "\"Ok\"");
}

TEST_F(ServerTest, AcceptsAgainAfterTheListenerCouldNotBeWatchedForAWhile) {
  Running running = start(echo);
  std::vector<Fd> hoard;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = 64;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  while (Fd fd = Fd(::dup(0))) hoard.push_back(std::move(fd));
  hoard.pop_back();
  PacketSocket socket = client();  // with nothing left to accept it with: the server pauses
  Fd listener(listener_number_);
  std::optional<Result<EventLoop::WatchId>> in_the_way;  // of the listener's own watch
  while (!in_the_way || !*in_the_way) {
    on_loop([&] { in_the_way = loop_->watch(listener, 0, [](uint32_t) {}); });
  }
  listener.release();
  hoard.clear();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  std::this_thread::sleep_for(250ms);  // until the pause is over
  on_loop([&] { loop_->unwatch(**in_the_way); });
  say(socket, gpe(12));
  EXPECT_EQ(hear(socket), err(12));
}

TEST_F(ServerTest, RunsOutOfDescriptorsAndRecovers) {
  Running running = start(echo, {.max_connections = 1000});
  std::vector<PacketSocket> idle;
  for (int i = 0; i < 4; ++i) idle.push_back(client());
  while (connections() != 4) std::this_thread::sleep_for(1ms);

  std::vector<Fd> hoard;  // of every descriptor but the one the next client needs
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = 64;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  while (Fd fd = Fd(::dup(0))) hoard.push_back(std::move(fd));
  hoard.pop_back();
  auto response = ask(path_, Gpe{.gpe = 11, .clear_evt = std::nullopt});
  hoard.clear();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(response) << response.error().what();
  EXPECT_EQ(display(*response), "error: Resource temporarily unavailable (os error 11)");
}

TEST_F(ServerTest, SocketFileGoesWithTheServer) {
  Running running = start(echo);
  EXPECT_TRUE(fs::is_socket(path_));
  stop();
  EXPECT_FALSE(fs::exists(path_));
}

TEST_F(ServerTest, RepliesMayOutliveTheServer) {
  std::optional<Reply> pending;
  Running running = start([&](Request, Reply reply) { pending = reply; });
  PacketSocket socket = client();
  say(socket, "\"Exit\"");
  bool arrived = false;
  while (!arrived) on_loop([&] { arrived = pending.has_value(); });
  stop();
  (*pending)(response::Ok());
  EXPECT_EQ(hear(socket), "closed");
}

}  // namespace
}  // namespace crosvm::control
