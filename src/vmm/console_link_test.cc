#include "vmm/console_link.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>

#include "vmm/console_pumps.h"
#include "vmm/terminal_size.h"

namespace crosvm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Hardware = SerialConfig::Hardware;
using Type = SerialConfig::Type;

SerialConfig port(Hardware hardware, uint8_t num, bool console = false,
                  std::optional<std::string> name = std::nullopt) {
  SerialConfig config;
  config.hardware = hardware;
  config.num = num;
  config.console = console;
  config.name = std::move(name);
  return config;
}

TEST(ConsoleParametersTest, DenseNumbersAreTheirOwn) {
  const std::vector<SerialConfig> ports{
      port(Hardware::kSerial, 1, true),        port(Hardware::kSerial, 3, true),
      port(Hardware::kVirtioConsole, 1, true), port(Hardware::kVirtioConsole, 2),
      port(Hardware::kVirtioConsole, 3, true), port(Hardware::kDebugcon, 1, true)};
  EXPECT_THAT(console_parameters(ports), ElementsAre("ttyS0", "ttyS2", "hvc0", "hvc2"));
}

TEST(ConsoleParametersTest, WhatIsNoHvcTakesNoNumber) {
  const std::vector<SerialConfig> ports{port(Hardware::kVirtioConsole, 2, false, "agent"),
                                        port(Hardware::kVirtioConsole, 5, true, "shell")};
  EXPECT_THAT(console_parameters(ports), ElementsAre("hvc0"));
}

/// A pipe and a loop; the other ends are the test's.
class ConsoleLinkTest : public testing::Test {
 protected:
  ConsoleLinkTest() {
    directory_ = std::filesystem::temp_directory_path() /
                 ("console_link_test." + std::to_string(::getpid()));
    std::filesystem::create_directory(directory_);
  }
  ~ConsoleLinkTest() override { std::filesystem::remove_all(directory_); }

  SerialHost host() {
    return {.loop = *loop_, .stop_event = stop_event_, .leave = [] {}};
  }
  std::string path(const char* name) { return directory_ / name; }
  static std::pair<Fd, Fd> make_pipe() {
    int ends[2];
    CHECK(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
  }
  static std::string read_all(const Fd& fd) {
    std::string all(1 << 20, '\0');
    const ssize_t got = ::read(fd.get(), all.data(), all.size());
    return all.substr(0, got < 0 ? 0 : static_cast<size_t>(got));
  }
  void turn() { EXPECT_TRUE(loop_->run_once(std::chrono::milliseconds(20))); }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
  Fd stop_event_ = *make_eventfd();
  std::filesystem::path directory_;
};

TEST_F(ConsoleLinkTest, DescribesTheDevice) {
  SerialConfig config = port(Hardware::kVirtioConsole, 3, false, "a,\"b\"");
  config.type = Type::kFile;
  config.path = path("out");
  config.pci_address = "00:1f.0";
  config.max_queue_sizes = {{64, 128}};
  config.out_timestamp = true;
  auto link = ConsoleLink::open(config, 2, host());
  ASSERT_TRUE(link) << link.error().what();
  const DeviceRequest& request = (*link)->request();
  EXPECT_EQ(request.type, "console");
  EXPECT_EQ(request.name, "console2");
  EXPECT_EQ(request.pci_address, "00:1f.0");
  auto parsed = parse_console_config(*KeyValues::parse(request.text));
  ASSERT_TRUE(parsed) << parsed.error().what() << request.text;
  EXPECT_EQ(parsed->ports[0], (ConsolePortConfig{.output = path("out"),
                                                 .input = {},
                                                 .sizes = {},
                                                 .name = "a,\"b\"",
                                                 .console = false,
                                                 .timestamp = true}));
  EXPECT_EQ(parsed->queue_sizes, (std::array<uint16_t, 2>{64, 128}));
  EXPECT_FALSE((*link)->reads_terminal());
  EXPECT_NE((*link)->take_device(), nullptr);
}

TEST_F(ConsoleLinkTest, AConsoleNeedsNoControlQueues) {
  auto link = ConsoleLink::open(port(Hardware::kVirtioConsole, 1, true, "shell"), 0, host());
  ASSERT_TRUE(link) << link.error().what();
  EXPECT_FALSE(parse_console_config(*KeyValues::parse((*link)->request().text))->multiport());
}

TEST_F(ConsoleLinkTest, ErrorsNameThePort) {
  SerialConfig config = port(Hardware::kVirtioConsole, 3);
  config.type = Type::kFile;
  config.path = path("missing/out");
  auto link = ConsoleLink::open(config, 0, host());
  ASSERT_FALSE(link);
  EXPECT_THAT(link.error().what(), HasSubstr("virtio-console 3: opening"));
  EXPECT_THAT(link.error().what(), HasSubstr("make its directory first"));
  config = port(Hardware::kVirtioConsole, 3);
  config.input = directory_;
  link = ConsoleLink::open(config, 0, host());
  ASSERT_FALSE(link);
  EXPECT_THAT(link.error().what(), HasSubstr("it is a directory; name a file"));
}

TEST_F(ConsoleLinkTest, AStreamSocketIsBothEnds) {
  Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  path("s").copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  SerialConfig config = port(Hardware::kVirtioConsole, 1);
  config.type = Type::kUnixStream;
  config.path = path("s");
  config.input_unix_stream = true;
  auto ends = open_serial_ends(config, host());
  ASSERT_TRUE(ends) << ends.error().what();
  EXPECT_TRUE(ends->output && ends->input);
  EXPECT_EQ(ends->input_name, path("s"));
}

class Collect : public SerialOutput {
 public:
  explicit Collect(std::string& to) : to_(to) {}
  Result<void> write(std::span<const std::byte> bytes) override {
    to_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }

 private:
  std::string& to_;
};

TEST_F(ConsoleLinkTest, TheOutputPumpLosesNothing) {
  auto [out, in] = make_pipe();
  std::string got;
  auto pump = OutputPump::create(*loop_, std::move(out), std::make_unique<Collect>(got));
  ASSERT_TRUE(pump);
  ASSERT_EQ(::write(in.get(), "first\n", 6), 6);
  turn();
  EXPECT_EQ(got, "first\n");
  const std::string much(20'000, 'x');
  ASSERT_EQ(::write(in.get(), much.data(), much.size()), 20'000);
  in = Fd();
  pump->reset();  // the VM ends: what the device has written still goes through
  EXPECT_EQ(got, "first\n" + much);
}

TEST_F(ConsoleLinkTest, AClosedPipeStopsTheOutputPump) {
  auto [out, in] = make_pipe();
  std::string got;
  auto pump = OutputPump::create(*loop_, std::move(out), std::make_unique<Collect>(got));
  in = Fd();
  turn();
  const auto before = std::chrono::steady_clock::now();
  turn();  // nothing is ready: the whole 20 ms pass
  EXPECT_GE(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(15));
}

TEST_F(ConsoleLinkTest, TheInputPumpIsNoFasterThanItsReader) {
  auto [source, feed] = make_pipe();
  auto [out, in] = make_pipe();
  ASSERT_GT(::fcntl(in.get(), F_SETPIPE_SZ, 4096), 0);
  std::string sent;
  for (int i = 0; sent.size() < 30'000; ++i) sent += std::to_string(i) + ' ';
  ASSERT_EQ(::write(feed.get(), sent.data(), sent.size()), static_cast<ssize_t>(sent.size()));
  feed = Fd();
  auto input = std::make_unique<SerialInput>(*loop_, std::move(source), "feed");
  InputPump pump(*loop_, std::move(input), std::move(in));
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(loop_->run_once(std::chrono::milliseconds(0)));
  std::string got = read_all(out);
  EXPECT_LE(got.size(), 4096u);
  while (got.size() < sent.size()) {
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(loop_->run_once(std::chrono::milliseconds(0)));
    const std::string more = read_all(out);
    ASSERT_FALSE(more.empty()) << got.size();
    got += more;
  }
  EXPECT_EQ(got, sent);
}

/// A pseudo-terminal in place of standard input.
class TerminalSizesTest : public ConsoleLinkTest {
 protected:
  TerminalSizesTest() : saved_(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)) {
    keyboard_ = Fd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    CHECK(keyboard_ && ::grantpt(keyboard_.get()) == 0 && ::unlockpt(keyboard_.get()) == 0);
    Fd terminal(::open(::ptsname(keyboard_.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    CHECK(terminal && ::dup2(terminal.get(), STDIN_FILENO) == STDIN_FILENO);
  }
  ~TerminalSizesTest() override { ::dup2(saved_.get(), STDIN_FILENO); }
  void set_size(uint16_t cols, uint16_t rows) {
    winsize size{.ws_row = rows, .ws_col = cols, .ws_xpixel = 0, .ws_ypixel = 0};
    ASSERT_EQ(::ioctl(keyboard_.get(), TIOCSWINSZ, &size), 0);
  }

  Fd saved_;
  Fd keyboard_;
};

TEST_F(TerminalSizesTest, TellsAtOnceAndAtEachSignal) {
  set_size(80, 25);
  std::vector<ConsoleSize> told;
  auto sizes = TerminalSizes::watch(*loop_, [&](ConsoleSize size) { told.push_back(size); });
  ASSERT_TRUE(sizes);
  EXPECT_THAT(told, ElementsAre(ConsoleSize{.cols = 80, .rows = 25}));
  set_size(132, 43);
  ::raise(SIGWINCH);
  turn();
  EXPECT_THAT(
      told, ElementsAre(ConsoleSize{.cols = 80, .rows = 25}, ConsoleSize{.cols = 132, .rows = 43}));
  sizes->reset();
  ::raise(SIGWINCH);  // ignored again
  turn();
  EXPECT_EQ(told.size(), 2u);
}

/// The signal itself comes from the kernel, to the programs that have the terminal as their own.
TEST_F(TerminalSizesTest, TheTerminalOfTheSessionSendsTheSignal) {
  set_size(80, 25);
  auto [out, in] = make_pipe();
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setsid() < 0 || ::ioctl(STDIN_FILENO, TIOCSCTTY, 0) != 0) ::_exit(1);
    auto loop = EventLoop::create();
    auto sizes = TerminalSizes::watch(**loop, [&](ConsoleSize size) {
      if (::write(in.get(), &size, sizeof(size)) != sizeof(size)) ::_exit(2);
    });
    while (sizes && (*loop)->run_once(std::chrono::seconds(10))) {
    }
    ::_exit(3);
  }
  auto next = [&out] {
    ConsoleSize size;
    pollfd wait{.fd = out.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&wait, 1, 10'000), 1);
    EXPECT_EQ(::read(out.get(), &size, sizeof(size)), ssize_t{sizeof(size)});
    return size;
  };
  EXPECT_EQ(next(), (ConsoleSize{.cols = 80, .rows = 25}));
  set_size(132, 43);
  EXPECT_EQ(next(), (ConsoleSize{.cols = 132, .rows = 43}));
  set_size(100, 50);
  EXPECT_EQ(next(), (ConsoleSize{.cols = 100, .rows = 50}));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST_F(TerminalSizesTest, AConsoleOnTheTerminalTakesItsSize) {
  SerialConfig config = port(Hardware::kVirtioConsole, 1, true);
  config.stdin_input = true;
  auto link = ConsoleLink::open(config, 0, host());
  ASSERT_TRUE(link) << link.error().what();
  EXPECT_TRUE((*link)->reads_terminal());
  auto parsed = parse_console_config(*KeyValues::parse((*link)->request().text));
  ASSERT_TRUE(parsed);
  EXPECT_TRUE(parsed->ports[0].sizes && parsed->ports[0].input);
  for (int i = 0; i < 100'000; ++i) (*link)->resize({.cols = 80, .rows = 25});  // never waits
}

}  // namespace
}  // namespace crosvm
