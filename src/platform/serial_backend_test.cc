#include "platform/serial_backend.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace crosvm {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Type = SerialConfig::Type;

/// A guest that has room for a few bytes at a time.
class SlowGuest : public SerialReceiver {
 public:
  size_t room() override { return capacity - queue.size(); }
  void receive(std::span<const std::byte> bytes) override {
    ASSERT_LE(bytes.size(), room());
    queue.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  std::string take() { return std::exchange(queue, ""); }
  size_t capacity = 4;
  std::string queue;
};

class SerialBackendTest : public ::testing::Test {
 protected:
  SerialBackendTest() {
    char name[] = "/tmp/serial_backend_test.XXXXXX";
    CHECK(::mkdtemp(name) != nullptr);
    directory_ = name;
  }
  ~SerialBackendTest() override { std::filesystem::remove_all(directory_); }

  SerialHost host() {
    return {.loop = *loop_, .stop_event = stop_, .leave = [this] { left_ = true; }};
  }
  std::string failure(const SerialConfig& config) {
    auto backend = open_serial_backend(config, host());
    return backend ? "no error" : backend.error().what();
  }
  void send(SerialBackend& backend, std::string_view text) {
    ASSERT_TRUE(backend.output->write(std::as_bytes(std::span(text))));
  }
  void put_file(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  std::string file_text(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  void run_loop(int times = 4) {
    for (int i = 0; i < times; ++i) ASSERT_TRUE(loop_->run_once(milliseconds(2)));
  }
  /// Reads all input at the guest's pace, until nothing comes any more.
  std::string read_all(SerialBackend& backend, SlowGuest& guest) {
    backend.input->start(guest);
    std::string all;
    for (int idle = 0; idle < 3;) {
      run_loop(2);
      std::string part = guest.take();
      idle = part.empty() ? idle + 1 : 0;
      all += part;
      backend.input->room_available();
    }
    return all;
  }

  std::string directory_;
  std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
  Fd stop_ = *make_eventfd();
  bool left_ = false;
};

TEST_F(SerialBackendTest, FileIsCreatedAndAppendedTo) {
  const std::string path = directory_ + "/out";
  for (const char* text : {"first ", "second"}) {
    auto backend = open_serial_backend({.type = Type::kFile, .path = path}, host());
    ASSERT_TRUE(backend) << backend.error().what();
    EXPECT_EQ(backend->input, nullptr);
    send(*backend, text);
    EXPECT_THAT(file_text(path), HasSubstr(text));  // flushed
  }
  EXPECT_EQ(file_text(path), "first second");
}

TEST_F(SerialBackendTest, FileByInheritedDescriptor) {
  const std::string path = directory_ + "/out";
  int inherited = ::open(path.c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_GE(inherited, 0);
  auto backend = open_serial_backend(
      {.type = Type::kFile, .path = "/proc/self/fd/" + std::to_string(inherited)}, host());
  ::close(inherited);
  ASSERT_TRUE(backend) << backend.error().what();
  send(*backend, "hi");
  EXPECT_EQ(file_text(path), "hi");
}

TEST_F(SerialBackendTest, AFifoNeedsItsReaderFirst) {
  const std::string path = directory_ + "/fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  ::alarm(30);  // else the test would wait as long as the program
  const std::string said = failure({.type = Type::kFile, .path = path});
  ::alarm(0);
  EXPECT_THAT(said, AllOf(HasSubstr(path), HasSubstr("nobody reads it; start its reader first")));

  Fd reader = *open_path(path, O_RDONLY | O_NONBLOCK);
  auto backend = open_serial_backend({.type = Type::kFile, .path = path}, host());
  ASSERT_TRUE(backend) << backend.error().what();
  send(*backend, "hi");
  std::array<char, 8> got{};
  EXPECT_EQ(::read(reader.get(), got.data(), got.size()), 2);
}

TEST_F(SerialBackendTest, TimestampsOnRequest) {
  const std::string path = directory_ + "/out";
  auto backend =
      open_serial_backend({.type = Type::kFile, .path = path, .out_timestamp = true}, host());
  ASSERT_TRUE(backend);
  send(*backend, "x\n");
  EXPECT_THAT(file_text(path),
              ::testing::ContainsRegex(
                  R"(^\[ [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9} \]: x)"));
}

TEST_F(SerialBackendTest, DebugconHasNoTimestampAndNoInput) {
  const std::string path = directory_ + "/out";
  put_file(directory_ + "/in", "input");
  auto backend = open_serial_backend({.type = Type::kFile,
                                      .hardware = SerialConfig::Hardware::kDebugcon,
                                      .path = path,
                                      .input = directory_ + "/in",
                                      .out_timestamp = true},
                                     host());
  ASSERT_TRUE(backend);
  EXPECT_EQ(backend->input, nullptr);
  send(*backend, "x\n");
  EXPECT_EQ(file_text(path), "x\n");
}

TEST_F(SerialBackendTest, ErrorsNameObjectCauseAndFix) {
  for (Type type : {Type::kFile, Type::kUnix, Type::kUnixStream}) {
    EXPECT_THAT(failure({.type = type, .num = 2}),
                AllOf(HasSubstr("serial 2"), HasSubstr("path=PATH")));
  }
  EXPECT_THAT(failure({.type = Type::kFile, .path = directory_}),
              AllOf(HasSubstr("serial 1"), HasSubstr(directory_), HasSubstr("directory")));
  EXPECT_THAT(failure({.input = directory_ + "/missing"}),
              AllOf(HasSubstr("missing"), HasSubstr("No such file"), HasSubstr("check the path")));
  EXPECT_THAT(failure({.input = directory_}),
              AllOf(HasSubstr("serial 1"), HasSubstr(directory_ + ": it is a directory")));
  EXPECT_THAT(failure({.input_unix_stream = true}), HasSubstr("needs type=unix-stream"));
  EXPECT_THAT(
      failure({.type = Type::kUnixStream, .path = "p", .input = "i", .input_unix_stream = true}),
      HasSubstr("leave out one"));
  EXPECT_THAT(failure({.input = "i", .stdin_input = true}), HasSubstr("leave out one"));
  EXPECT_THAT(failure({.type = Type::kFile, .path = directory_ + "/none/out"}),
              HasSubstr("make its directory first"));
  EXPECT_THAT(failure({.type = Type::kUnixStream, .path = directory_ + "/none"}),
              AllOf(HasSubstr("No such file"), HasSubstr("start the program that listens there")));
  put_file(directory_ + "/file", "");
  EXPECT_THAT(failure({.type = Type::kUnixStream, .path = directory_ + "/file"}),
              HasSubstr("start the program that listens there"));
  Fd datagrams(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  (directory_ + "/datagrams").copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(datagrams.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_THAT(failure({.type = Type::kUnixStream, .path = directory_ + "/datagrams"}),
              HasSubstr("use type=unix"));
}

TEST_F(SerialBackendTest, AFileIsReadAtTheGuestsPace) {
  const std::string path = directory_ + "/in";
  std::string text;
  for (int i = 0; i < 200; ++i) text += std::to_string(i) + ",";
  put_file(path, text);
  auto backend = open_serial_backend({.input = path}, host());
  ASSERT_TRUE(backend) << backend.error().what();
  EXPECT_FALSE(backend->reads_terminal);
  SlowGuest guest;
  backend->input->start(guest);
  run_loop(10);
  EXPECT_EQ(guest.queue, "0,1,");  // no more than there is room for
  EXPECT_EQ(guest.take() + read_all(*backend, guest), text);
}

TEST_F(SerialBackendTest, AnEndlessFileDoesNotKeepTheLoop) {
  auto backend = open_serial_backend({.input = "/dev/zero"}, host());
  ASSERT_TRUE(backend);
  SlowGuest guest;
  guest.capacity = 1 << 20;
  backend->input->start(guest);
  const auto begin = EventLoop::Clock::now();
  run_loop(10);
  EXPECT_LT(EventLoop::Clock::now() - begin, std::chrono::seconds(2));
  EXPECT_GT(guest.queue.size(), 0u);
}

TEST_F(SerialBackendTest, AnEmptyFileEndsTheInput) {
  auto backend = open_serial_backend({.input = "/dev/null"}, host());
  ASSERT_TRUE(backend);
  SlowGuest guest;
  EXPECT_EQ(read_all(*backend, guest), "");
}

TEST_F(SerialBackendTest, AFifoWithoutWriterDoesNotHoldUpTheStart) {
  const std::string path = directory_ + "/fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  auto backend = open_serial_backend({.input = path}, host());
  ASSERT_TRUE(backend);
  SlowGuest guest;
  backend->input->start(guest);
  run_loop();
  Fd writer(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  ASSERT_TRUE(writer);
  ASSERT_EQ(::write(writer.get(), "fifo text", 9), 9);
  writer = Fd();
  EXPECT_EQ(read_all(*backend, guest), "fifo text");
}

TEST_F(SerialBackendTest, StreamCarriesBothDirections) {
  const std::string path = directory_ + "/sock";
  Fd server(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(server.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(server.get(), 1), 0);
  auto backend = open_serial_backend(
      {.type = Type::kUnixStream, .path = path, .input_unix_stream = true}, host());
  ASSERT_TRUE(backend) << backend.error().what();
  Fd peer(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
  send(*backend, "to host");
  char text[8] = {};
  EXPECT_EQ(::read(peer.get(), text, 7), 7);
  EXPECT_STREQ(text, "to host");
  ASSERT_EQ(::write(peer.get(), "to guest", 8), 8);
  peer = Fd();  // a peer that goes away ends the input and breaks the output, no more
  SlowGuest guest;
  EXPECT_EQ(read_all(*backend, guest), "to guest");
  ::signal(SIGPIPE, SIG_IGN);
  EXPECT_FALSE(backend->output->write(std::as_bytes(std::span("x", 1))));
}

/// Puts another descriptor in the place of stdin for one test.
class StdinSwap {
 public:
  explicit StdinSwap(const Fd& fd) : saved_(::fcntl(0, F_DUPFD_CLOEXEC, 3)) {
    CHECK(::dup2(fd.get(), 0) == 0);
  }
  ~StdinSwap() { ::dup2(saved_.get(), 0); }

 private:
  Fd saved_;
};

class TerminalInputTest : public SerialBackendTest {
 protected:
  TerminalInputTest() {
    int master = -1;
    int slave = -1;
    CHECK(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0);
    keyboard_ = Fd(master);
    terminal_ = Fd(slave);
    termios raw{};
    CHECK(::tcgetattr(slave, &raw) == 0);
    ::cfmakeraw(&raw);
    CHECK(::tcsetattr(slave, TCSANOW, &raw) == 0);
    swap_.emplace(terminal_);
    backend_ = *open_serial_backend({.stdin_input = true}, host());
  }
  void type(std::string_view keys) {
    ASSERT_EQ(::write(keyboard_.get(), keys.data(), keys.size()),
              static_cast<ssize_t>(keys.size()));
  }
  Fd keyboard_;
  Fd terminal_;
  std::optional<StdinSwap> swap_;
  SerialBackend backend_;
};

TEST_F(TerminalInputTest, KeysReachTheGuest) {
  EXPECT_TRUE(backend_.reads_terminal);
  SlowGuest guest;
  type("\001\001\x03 keys");
  EXPECT_EQ(read_all(backend_, guest), "\001\x03 keys");
  EXPECT_FALSE(left_);
}

TEST_F(TerminalInputTest, TheUserMayLeaveBeforeTheGuestReads) {
  type("typed ahead\001x");
  run_loop();
  EXPECT_TRUE(left_);
}

TEST_F(TerminalInputTest, TheUserMayLeaveAGuestThatHangs) {
  SlowGuest guest;
  backend_.input->start(guest);
  for (int i = 0; i < 100; ++i) {
    type(std::string(100, 'k'));
    run_loop();
  }
  EXPECT_EQ(guest.queue.size(), guest.capacity);
  EXPECT_FALSE(left_);
  type("\001x");
  run_loop();
  EXPECT_TRUE(left_);
  guest.capacity = 8192;
  EXPECT_EQ(read_all(backend_, guest).size(), 4096u + 4u);
}

TEST_F(SerialBackendTest, StdinThatIsNoTerminalHasNoEscape) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  StdinSwap swap(reader);
  auto backend = *open_serial_backend({.stdin_input = true}, host());
  EXPECT_FALSE(backend.reads_terminal);
  ASSERT_EQ(::write(writer.get(), "\001x", 2), 2);
  SlowGuest guest;
  EXPECT_EQ(read_all(backend, guest), "\001x");
  EXPECT_FALSE(left_);
}

}  // namespace
}  // namespace crosvm
