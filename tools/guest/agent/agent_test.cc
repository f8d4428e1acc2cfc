// The agent and its client over a socket, as over a virtio port.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "agent_client.h"
#include "guest/agent/frame.h"
#include "guest/agent/port.h"
#include "guest/agent/session.h"

namespace crosvm::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::AgentClient;
using test::AgentResult;

std::string every_byte() {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  return bytes;
}

std::string little_endian(uint32_t length) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(length >> (8 * i) & 255);
  return bytes;
}

TEST(Base64Test, EveryLengthComesBack) {
  EXPECT_EQ(encode_base64("f"), "Zg==");
  EXPECT_EQ(encode_base64("foobar"), "Zm9vYmFy");  // RFC 4648 section 10
  for (size_t length = 0; length < 20; ++length) {
    std::string bytes = every_byte().substr(240 - length, length);
    EXPECT_EQ(*decode_base64(encode_base64(bytes)), bytes);
  }
}

TEST(Base64Test, WhatIsNotItIsRefused) {
  for (const char* text :
       {"Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm 9", "Zm-_", "Z=g="})
    EXPECT_FALSE(decode_base64(text)) << text;
}

TEST(FrameTest, AMessageSurvivesAnyCut) {
  Json message = Json::object({{"id", 7}, {"stdout", "line\n"}});
  std::string twice = encode_frame(message) + encode_frame(message);
  for (size_t cut = 0; cut <= twice.size(); ++cut) {
    FrameReader reader;
    int seen = 0;
    for (std::string_view part :
         {std::string_view(twice).substr(0, cut), std::string_view(twice).substr(cut)}) {
      reader.add(part);
      for (;;) {
        auto next = reader.next();
        ASSERT_TRUE(next);
        if (!next->has_value()) break;
        EXPECT_EQ(**next, message);
        ++seen;
      }
    }
    EXPECT_EQ(seen, 2);
    EXPECT_FALSE(reader.partial());
  }
}

TEST(FrameTest, ATextThatIsNoObjectIsSkipped) {
  FrameReader reader;
  for (const char* text : {"[]", "{", "", "{\"a\":[[[[1]]]]}", "{\"a\":1,\"a\":1}"}) {
    reader.add(little_endian(static_cast<uint32_t>(std::string_view(text).size())) + text);
    EXPECT_FALSE(reader.next()) << text;
  }
  reader.add(encode_frame(Json::object({{"ping", true}})));
  auto next = reader.next();
  ASSERT_TRUE(next && next->has_value());
  EXPECT_NE((*next)->find("ping"), nullptr);
}

TEST(FrameTest, ALengthBeyondTheLimitDropsTheStream) {
  FrameReader reader;
  reader.add(little_endian(kMaxFrame + 1) + "some text");
  auto next = reader.next();
  ASSERT_FALSE(next);
  EXPECT_EQ(next.error().code(), std::errc::message_size);
  EXPECT_FALSE(reader.partial());
}

TEST(FrameTest, BytesAreTextOrBase64) {
  Json text = Json::object();
  set_bytes(text, "stdout", "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(text.dump(), "{\"stdout\":\"gr\xc3\xbc\xc3\x9f\"}");
  Json binary = Json::object();
  set_bytes(binary, "stdout", "\xff");
  EXPECT_EQ(binary.dump(), R"({"stdout_base64":"/w=="})");
  EXPECT_EQ(**get_bytes(binary, "stdout"), "\xff");
  Json zeros = Json::object();
  set_bytes(zeros, "stdout", std::string(3, '\0'));
  EXPECT_EQ(zeros.dump(), R"({"stdout_base64":"AAAA"})");
  EXPECT_FALSE(get_bytes(*Json::parse(R"({"a":"","a_base64":""})"), "a"));
  EXPECT_FALSE(get_bytes(*Json::parse(R"({"a_base64":"*"})"), "a"));
  EXPECT_FALSE(get_bytes(*Json::parse(R"({"a":1})"), "a"));
  EXPECT_EQ(*get_bytes(text, "stderr"), std::nullopt);
}

/// A folder of this test's own.
class Folder {
 public:
  Folder() {
    char path[] = "/tmp/agent-test-XXXXXX";
    if (::mkdtemp(path) == nullptr) ADD_FAILURE() << "mkdtemp failed";
    path_ = path;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(PortFinderTest, OpensThePortOfThatName) {
  Folder folder;
  auto ports = folder.path() / "class";
  auto devices = folder.path() / "dev";
  PortFinder finder("agent", ports, devices);
  EXPECT_FALSE(finder.open()) << "no such class yet";
  for (auto [port, name] : {std::pair("vport0p1", "other"), std::pair("vport1p1", "agent")}) {
    std::filesystem::create_directories(ports / port);
    std::ofstream(ports / port / "name") << name << '\n';
  }
  EXPECT_FALSE(finder.open()) << "its node is not there yet";
  std::filesystem::create_directories(devices);
  std::ofstream(devices / "vport1p1") << "this one";
  Fd port = finder.open();
  ASSERT_TRUE(port);
  char text[16] = {};
  EXPECT_EQ(::read(port.get(), text, sizeof(text)), 8);
  EXPECT_STREQ(text, "this one");
}

/// An agent on a thread of its own, and the host's end of its socket.
class AgentTest : public testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);  // as the agent's main has it
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    host_.emplace(AgentClient::on(Fd(ends[0])));
    agent_ = std::thread(
        [this, port = ends[1]] { Session(Fd(port), [this] { ++power_offs_; }).serve(); });
  }
  void TearDown() override {
    host_.reset();
    if (agent_.joinable()) agent_.join();
  }

  AgentResult shell(const std::string& command, const test::AgentOptions& options = {}) {
    auto result = host_->shell(command, options);
    if (!result) ADD_FAILURE() << result.error().what();
    return result.value_or(AgentResult());
  }

  std::optional<AgentClient> host_;
  std::thread agent_;
  std::atomic<int> power_offs_ = 0;
};

TEST_F(AgentTest, OutputErrorsAndStatusComeBack) {
  AgentResult result = shell("echo said; echo complained >&2; exit 42");
  EXPECT_EQ(result.output, "said\n");
  EXPECT_EQ(result.errors, "complained\n");
  EXPECT_EQ(result.status, 42);
  EXPECT_EQ(result.signal, 0);
}

TEST_F(AgentTest, InputIsRead) {
  std::string input;
  for (int i = 0; i < 500; ++i) input += every_byte();  // more than a pipe holds, and no UTF-8
  EXPECT_EQ(shell("cat", {.input = input}).output, input);
  EXPECT_EQ(shell("exit 3", {.input = input}).status, 3) << "nobody reads it";
}

TEST_F(AgentTest, MuchOutputComesWhole) {
  AgentResult result = shell("yes | head -c 1000000; head -c 1000000 /dev/zero >&2");
  std::string expected;
  while (expected.size() < 1'000'000) expected += "y\n";
  EXPECT_EQ(result.output, expected);
  EXPECT_EQ(result.errors, std::string(1'000'000, '\0'));
}

TEST_F(AgentTest, ASignalIsTold) {
  AgentResult result = shell("kill -TERM $$");
  EXPECT_EQ(result.signal, SIGTERM);
  EXPECT_EQ(result.status, 128 + SIGTERM);
  EXPECT_FALSE(result.timed_out);
}

TEST_F(AgentTest, TimeKillsTheWholeGroup) {
  AgentResult result =
      shell("echo before; sleep 1000 | sleep 1000", {.timeout = milliseconds(300)});
  EXPECT_TRUE(result.timed_out);
  EXPECT_EQ(result.signal, SIGKILL);
  EXPECT_EQ(result.output, "before\n");
  EXPECT_EQ(shell("echo after").output, "after\n");
}

TEST_F(AgentTest, WhatIsLeftInTheBackgroundIsNotWaitedFor) {
  AgentResult result = shell("echo $$; sleep 1000 &");
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(::kill(-std::stoi(result.output), SIGKILL), 0) << "and it goes on";
}

TEST_F(AgentTest, AProgramThatIsNotThereIsAnError) {
  auto result = host_->run({"/no/such/program"});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().what(), testing::HasSubstr("/no/such/program: No such file"));
  EXPECT_EQ(shell("exit 5").status, 5) << "the agent goes on";
}

TEST_F(AgentTest, BadRequestsAreAnswered) {
  ASSERT_TRUE(host_->wait_ready(seconds(10)));
  for (const char* text : {"{}", R"({"argv":[]})", R"({"argv":"ls"})", R"({"argv":[1]})",
                           R"({"argv":["a\u0000b"]})", R"({"argv":["true"],"timeout_ms":-1})",
                           R"({"argv":["true"],"stdin":5})", "[1]", "nonsense"}) {
    ASSERT_TRUE(host_->send_raw(little_endian(static_cast<uint32_t>(strlen(text))) + text));
    auto answer = host_->receive(seconds(10));
    ASSERT_TRUE(answer) << text;
    EXPECT_NE(answer->find("error"), nullptr) << text;
  }
  EXPECT_EQ(shell("exit 6").status, 6);
}

TEST_F(AgentTest, GarbageIsSurvived) {
  ASSERT_TRUE(host_->wait_ready(seconds(10)));
  ASSERT_TRUE(host_->send_raw(std::string(300'000, '\xee')));
  auto answer = host_->receive(seconds(10));
  ASSERT_TRUE(answer) << answer.error().what();
  EXPECT_NE(answer->find("error"), nullptr);
  // The agent listens again when it has been quiet for a moment.
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_EQ(shell("exit 7").status, 7);
}

TEST_F(AgentTest, AFrameWithoutItsEndIsGivenUp) {
  ASSERT_TRUE(host_->wait_ready(seconds(10)));
  ASSERT_TRUE(host_->send_raw(little_endian(100) + "{"));
  auto answer = host_->receive(seconds(60));
  ASSERT_TRUE(answer) << answer.error().what();
  EXPECT_NE(answer->find("error"), nullptr);
  EXPECT_EQ(shell("exit 8").status, 8);
}

TEST_F(AgentTest, TheHostsEndKillsTheCommand) {
  Folder folder;
  auto pid_file = folder.path() / "pid";
  ASSERT_TRUE(host_->wait_ready(seconds(10)));
  Json words = Json::array(
      {"sh", "-c", "echo $$ >" + pid_file.string() + "; echo started; exec sleep 1000"});
  ASSERT_TRUE(host_->send_raw(encode_frame(Json::object({{"id", 1}, {"argv", std::move(words)}}))));
  auto answer = host_->receive(seconds(10));
  ASSERT_TRUE(answer) << answer.error().what();
  host_.reset();
  agent_.join();
  pid_t pid = 0;
  std::ifstream(pid_file) >> pid;
  ASSERT_GT(pid, 0);
  EXPECT_EQ(::kill(pid, 0), -1) << "killed and reaped";
}

TEST_F(AgentTest, PowerOffIsAnswered) {
  auto heard = host_->power_off();
  ASSERT_TRUE(heard) << heard.error().what();
  shell("true");  // the agent is past it
  EXPECT_EQ(power_offs_, 1);
}

/// The other way round: what a hostile guest may send.
class HostileGuestTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    host_.emplace(AgentClient::on(Fd(ends[0])));
    guest_ = Fd(ends[1]);
  }
  void say_bytes(std::string_view bytes) {
    ASSERT_EQ(::write(guest_.get(), bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
  }
  void say(const Json& message) { say_bytes(encode_frame(message)); }

  std::optional<AgentClient> host_;
  Fd guest_;
};

TEST_F(HostileGuestTest, ASilentGuestIsATimeout) {
  auto ready = host_->wait_ready(milliseconds(200));
  ASSERT_FALSE(ready);
  EXPECT_EQ(ready.error().code(), std::errc::timed_out);
}

TEST_F(HostileGuestTest, AnEndIsTold) {
  guest_ = Fd();
  auto ready = host_->wait_ready(seconds(10));
  ASSERT_FALSE(ready);
  EXPECT_EQ(ready.error().code(), std::errc::connection_reset);
}

TEST_F(HostileGuestTest, AHugeFrameIsRefused) {
  say_bytes(little_endian(0xffffffff));
  auto ready = host_->wait_ready(seconds(10));
  ASSERT_FALSE(ready);
  EXPECT_EQ(ready.error().code(), std::errc::message_size);
}

TEST_F(HostileGuestTest, AnswersOutOfRangeAreErrors) {
  for (Json status : {Json(256), Json(-1), Json("0"), Json(1e9)}) {
    SetUp();
    say(Json::object({{"hello", true}}));
    say(Json::object({{"id", 9}, {"status", 0}}));  // nobody asked
    say(Json::object({{"id", 1}, {"status", std::move(status)}}));
    EXPECT_FALSE(host_->run({"true"}));
  }
}

}  // namespace
}  // namespace crosvm::agent
