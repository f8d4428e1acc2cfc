#include "devices/console/console_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_ids.h>
#include <sys/ioctl.h>

#include <filesystem>
#include <fstream>

#include "devices/console/console_test_host.h"
#include "virtio/rig/hostile_chains.h"

namespace crosvm {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

/// One port between two pipes.
class ConsoleDeviceTest : public testing::TestWithParam<std::tuple<RigPlace, bool>> {
 protected:
  static RigOptions options() {
    return {.place = std::get<0>(GetParam()), .packed = std::get<1>(GetParam())};
  }
  Rig make_rig(std::string_view keys = "", int capacity = 65536) {
    ConsoleResources resources;
    auto [their_input, our_output] = make_test_pipe();
    auto [our_input, their_output] = make_test_pipe(capacity);
    to_guest_ = std::move(our_output);
    from_guest_ = std::move(our_input);
    resources.inputs.push_back(std::move(their_input));
    resources.outputs.push_back(std::move(their_output));
    return make_console("ports=[[output=out,input=in" + std::string(keys) + "]]",
                        std::move(resources), options());
  }
  /// One port on a terminal, of which the test says the size.
  Rig make_sized_rig(bool start) {
    ConsoleResources resources;
    auto [reader, writer] = make_test_pipe();
    sizes_ = std::move(writer);
    resources.sizes.push_back(std::move(reader));
    RigOptions wanted = options();
    wanted.start = start;
    set_size({.cols = 97, .rows = 31});
    return make_console("ports=[[sizes=s,console]]", std::move(resources), wanted);
  }
  void set_size(ConsoleSize size) {
    ASSERT_EQ(::write(sizes_.get(), &size, sizeof(size)), ssize_t{sizeof(size)});
  }
  static ConsoleSize shown_size(const Rig& rig) {
    virtio_console_config config{};
    std::memcpy(&config, rig.config().data(), std::min(sizeof(config), rig.config().size()));
    return {.cols = config.cols, .rows = config.rows};
  }
  Fd to_guest_, from_guest_, sizes_;
};

TEST_P(ConsoleDeviceTest, OnePortIsAPlainConsole) {
  auto rig = make_rig();
  EXPECT_EQ(rig.info().device_type, unsigned{VIRTIO_ID_CONSOLE});
  EXPECT_EQ(rig.info().queue_sizes, (std::vector<uint16_t>{256, 256}));
  EXPECT_EQ(rig.info().features & 7, 1U << VIRTIO_CONSOLE_F_EMERG_WRITE);
  EXPECT_EQ(rig.info().config,
            readable(virtio_console_config{.cols = 0, .rows = 0, .max_nr_ports = 1, .emerg_wr = 0})
                .bytes);
}

TEST_P(ConsoleDeviceTest, SendsEveryByteInOrder) {
  auto rig = make_rig();
  std::string sent;
  for (int i = 0; i < 300; ++i) {
    const std::string line = "line " + std::to_string(i) + "\n";
    rig.driver(1).send({readable(line), readable("x"), writable(4)});
    const RigUsed used = rig.driver(1).wait_used();
    ASSERT_TRUE(used.arrived);
    EXPECT_EQ(used.written, 0u);
    sent += line + "x";
  }
  EXPECT_EQ(receive(rig, from_guest_, sent.size()), sent);
}

TEST_P(ConsoleDeviceTest, DeliversInputThatIsLargerThanTheBuffers) {
  auto rig = make_rig();
  std::string sent;
  while (sent.size() < 20'000) sent += std::to_string(sent.size()) + " ";
  send_all(to_guest_, sent);
  std::string got;
  while (got.size() < sent.size()) {
    rig.driver(0).send({writable(7), writable(93)});
    const RigUsed used = rig.driver(0).wait_used();
    ASSERT_TRUE(used.arrived);
    ASSERT_LE(used.written, 100u);
    got += text_of(used);
  }
  EXPECT_EQ(got, sent);
}

TEST_P(ConsoleDeviceTest, ReadsNothingAhead) {
  auto rig = make_rig();
  send_all(to_guest_, "0123456789");
  rig.driver(0).send({readable("no room"), writable(0)});
  rig.driver(0).send({writable(4)});
  EXPECT_EQ(rig.driver(0).wait_used().written, 0u);
  EXPECT_EQ(text_of(rig.driver(0).wait_used()), "0123");
  rig.settle();
  int left = 0;  // the reading end is the device's, but a pipe has one count
  ASSERT_EQ(::ioctl(to_guest_.get(), FIONREAD, &left), 0);
  EXPECT_EQ(left, 6);
}

TEST_P(ConsoleDeviceTest, InputThatComesLaterFindsTheBuffer) {
  auto rig = make_rig();
  rig.driver(0).send({writable(16)});
  rig.settle();
  send_all(to_guest_, "later");
  EXPECT_EQ(text_of(rig.driver(0).wait_used()), "later");
}

TEST_P(ConsoleDeviceTest, TheEndOfTheInputKeepsTheBuffers) {
  auto rig = make_rig();
  send_all(to_guest_, "last");
  to_guest_ = Fd();
  rig.driver(0).send({writable(16)});
  rig.driver(0).send({writable(16)});
  EXPECT_EQ(text_of(rig.driver(0).wait_used()), "last");
  rig.settle();
  EXPECT_FALSE(rig.driver(0).wait_used(std::chrono::milliseconds(20)).arrived);
  rig.driver(1).send({readable("still sends")});
  EXPECT_TRUE(rig.driver(1).wait_used().arrived);
  EXPECT_EQ(receive(rig, from_guest_, 11), "still sends");
}

TEST_P(ConsoleDeviceTest, AFullPipeHoldsTheBufferUntilItIsWritten) {
  auto rig = make_rig("", 4096);
  std::string sent;
  while (sent.size() < 100'000) sent += std::to_string(sent.size()) + " ";
  rig.driver(1).send({readable(sent)});
  rig.driver(1).send({readable("end")});
  rig.settle();
  EXPECT_FALSE(rig.driver(1).wait_used(std::chrono::milliseconds(20)).arrived);
  rig.driver(0).send({writable(16)});  // the other direction is not held up
  send_all(to_guest_, "typed");
  EXPECT_EQ(text_of(rig.driver(0).wait_used()), "typed");
  std::string got;
  while (got.size() < sent.size() + 3) {
    rig.settle();
    const std::string more =
        receive(rig, from_guest_, std::min<size_t>(1000, sent.size() + 3 - got.size()));
    ASSERT_FALSE(more.empty()) << got.size();
    got += more;
  }
  EXPECT_EQ(got, sent + "end");
  EXPECT_TRUE(rig.driver(1).wait_used().arrived);
  EXPECT_TRUE(rig.driver(1).wait_used().arrived);
}

TEST_P(ConsoleDeviceTest, AStopWithDataHeldLosesNothing) {
  auto rig = make_rig("", 4096);
  std::string sent;
  while (sent.size() < 100'000) sent += std::to_string(sent.size()) + " ";
  rig.driver(1).send({readable(sent)});
  std::string got;
  while (got.size() < sent.size()) {
    rig.settle();
    rig.restart();  // again and again
    rig.settle();
    const std::string more =
        receive(rig, from_guest_, std::min<size_t>(5000, sent.size() - got.size()));
    ASSERT_FALSE(more.empty()) << got.size();
    got += more;
  }
  EXPECT_EQ(got, sent);
  EXPECT_TRUE(rig.driver(1).wait_used().arrived);
}

TEST_P(ConsoleDeviceTest, AResetWithDataHeldStartsAnew) {
  auto rig = make_rig("", 4096);
  const std::string sent(100'000, 'x');
  rig.driver(1).send({readable(sent)});
  rig.settle();
  rig.reset();
  rig.driver(1).send({readable("new")});
  std::string got;
  do {
    rig.settle();
    got += receive(rig, from_guest_, 1);
  } while (got.back() == 'x');
  EXPECT_LT(got.size(), sent.size());
  while (got.size() < 100'000 && !got.ends_with("new")) {
    rig.settle();
    got += receive(rig, from_guest_, 1);
  }
  EXPECT_TRUE(got.ends_with("new"));
  EXPECT_EQ(got.find_first_not_of('x'), got.size() - 3);
  EXPECT_TRUE(rig.driver(1).wait_used().arrived);
}

TEST_P(ConsoleDeviceTest, WithoutAReaderOutputIsDropped) {
  auto rig = make_rig();
  from_guest_ = Fd();
  for (int i = 0; i < 100; ++i) {
    rig.driver(1).send({readable(std::string(5000, 'x'))});
    ASSERT_TRUE(rig.driver(1).wait_used().arrived);
  }
}

TEST_P(ConsoleDeviceTest, AReaderThatLeavesFreesTheHeldBuffer) {
  auto rig = make_rig("", 4096);
  rig.driver(1).send({readable(std::string(100'000, 'x'))});
  rig.settle();
  from_guest_ = Fd();
  EXPECT_TRUE(rig.driver(1).wait_used().arrived);
}

TEST_P(ConsoleDeviceTest, APeerThatVanishesFreesTheHeldBufferAndEndsTheInput) {
  ConsoleResources resources;
  auto [theirs, peer] = make_test_socket();
  resources.outputs.push_back(*theirs.duplicate());
  resources.inputs.push_back(std::move(theirs));
  auto rig = make_console("ports=[[output=s,input=s]]", std::move(resources), options());
  send_all(peer, "last words");
  rig.driver(1).send({readable(std::string(8 << 20, 'x'))});  // more than a socket takes
  rig.settle();
  EXPECT_FALSE(rig.driver(1).wait_used(std::chrono::milliseconds(20)).arrived);
  peer = Fd();
  EXPECT_TRUE(rig.driver(1).wait_used().arrived);
  for (int i = 0; i < 100; ++i) {
    rig.driver(1).send({readable("to nobody")});
    ASSERT_TRUE(rig.driver(1).wait_used().arrived) << i;
  }
  rig.driver(0).send({writable(64)});
  rig.settle();
  rig.restart();
  rig.driver(0).send({writable(64)});
  rig.driver(1).send({readable("to nobody")});
  EXPECT_TRUE(rig.driver(1).wait_used().arrived);
  EXPECT_FALSE(rig.needs_reset());
}

TEST_P(ConsoleDeviceTest, APipeThatWouldWaitIsNeverWaitedFor) {  // a stdout that is not our own
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Fd reader(ends[0]);
  ConsoleResources resources;
  resources.outputs.emplace_back(ends[1]);
  auto [input, keys] = make_test_pipe();
  resources.inputs.push_back(std::move(input));
  auto rig = make_console("ports=[[output=out,input=in]]", std::move(resources), options());
  rig.driver(1).send({readable(std::string(200'000, 'x'))});
  rig.settle();
  EXPECT_FALSE(rig.driver(1).wait_used(std::chrono::milliseconds(20)).arrived);
  rig.driver(0).send({writable(16)});
  send_all(keys, "typed");
  EXPECT_EQ(text_of(rig.driver(0).wait_used()), "typed");
  rig.reset();  // answered, as is the end of the device
}

TEST_P(ConsoleDeviceTest, TimestampsBeginEachLine) {
  auto rig = make_rig(",timestamp");
  rig.driver(1).send({readable("one\ntw")});
  rig.driver(1).send({readable("o\n")});
  ASSERT_TRUE(rig.driver(1).wait_used().arrived && rig.driver(1).wait_used().arrived);
  const std::string stamp = "\\[ [0-9-]+ [0-9:.]+ \\]: ";
  EXPECT_THAT(receive(rig, from_guest_, 2 * 36 + 8),
              MatchesRegex(stamp + "one\n" + stamp + "two\n"));
}

TEST_P(ConsoleDeviceTest, TheSizeIsAChangeThatARunningDriverSees) {
  auto rig = make_sized_rig(false);
  EXPECT_TRUE(rig.info().features & 1U << VIRTIO_CONSOLE_F_SIZE);
  EXPECT_EQ(shown_size(rig), ConsoleSize());
  set_size({.cols = 120, .rows = 40});
  rig.settle();
  EXPECT_EQ(rig.config_changes(), 0u) << "no driver runs";
  rig.start();
  ASSERT_TRUE(rig.wait_config_change(0));
  // On a thread the second size may be read only now.
  if (shown_size(rig).cols == 97) {
    ASSERT_TRUE(rig.wait_config_change(1));
  }
  EXPECT_EQ(shown_size(rig), (ConsoleSize{.cols = 120, .rows = 40}));
}

TEST_P(ConsoleDeviceTest, AResetHidesTheSizeUntilTheNextStart) {
  auto rig = make_sized_rig(true);
  ASSERT_TRUE(rig.wait_config_change(0));
  EXPECT_EQ(shown_size(rig), (ConsoleSize{.cols = 97, .rows = 31}));
  rig.reset_and_stay();
  ASSERT_TRUE(rig.wait_config_change(1));
  EXPECT_EQ(shown_size(rig), ConsoleSize());
  rig.start();
  ASSERT_TRUE(rig.wait_config_change(2));
  EXPECT_EQ(shown_size(rig), (ConsoleSize{.cols = 97, .rows = 31}));
}

TEST_P(ConsoleDeviceTest, AStopKeepsTheSizeAndAResizeIsAChange) {
  auto rig = make_sized_rig(true);
  ASSERT_TRUE(rig.wait_config_change(0));
  rig.restart();
  rig.settle();
  EXPECT_EQ(rig.config_changes(), 1u);
  set_size({.cols = 120, .rows = 40});
  ASSERT_TRUE(rig.wait_config_change(1));
  EXPECT_EQ(shown_size(rig), (ConsoleSize{.cols = 120, .rows = 40}));
  set_size({.cols = 120, .rows = 40});  // not another size
  set_size({.cols = 80, .rows = 25});
  ASSERT_TRUE(rig.wait_config_change(2));
  EXPECT_EQ(shown_size(rig), (ConsoleSize{.cols = 80, .rows = 25}));
  EXPECT_EQ(rig.config_changes(), 3u);
}

TEST_P(ConsoleDeviceTest, EmergencyWritesNeedNoQueue) {
  auto rig = make_rig();
  rig.reset_and_stay();
  const uint32_t character = 'E';
  rig.write_config(offsetof(virtio_console_config, emerg_wr), readable(character).bytes);
  rig.write_config(offsetof(virtio_console_config, cols), readable(character).bytes);  // ignored
  rig.settle();
  rig.start();
  rig.driver(1).send({readable("!")});
  EXPECT_EQ(receive(rig, from_guest_, 2), "E!");
}

TEST_P(ConsoleDeviceTest, SurvivesGeneratedChainsOnBothQueues) {
  auto rig = make_console("ports=[[]]", {}, options());
  EXPECT_EQ(play_hostile_chains(rig, {.queue = 1, .may_refuse = false}).failure, "");
  EXPECT_EQ(play_hostile_chains(rig, {.queue = 0, .chains = 500, .answers = false}).failure, "");
}

TEST_P(ConsoleDeviceTest, SurvivesGeneratedChainsWhileInputComes) {
  ConsoleResources resources;
  resources.inputs.push_back(*open_path("/dev/zero", O_RDONLY));
  auto rig = make_console("ports=[[input=zero]]", std::move(resources), options());
  const auto result = play_hostile_chains(rig, {.queue = 0, .chains = 2000, .answers = false});
  EXPECT_EQ(result.failure, "");
  EXPECT_GT(result.answered, 100u);
}

TEST_P(ConsoleDeviceTest, SurvivesGeneratedChainsOnControlQueues) {
  auto rig = make_console("ports=[[console],[name=b]]", {}, options());
  auto fill = [](std::span<std::byte> readable, HostileChains::Random& random) {
    for (std::byte& byte : readable) byte = std::byte(random() % 9);  // often a message
  };
  EXPECT_EQ(play_hostile_chains(rig, {.queue = 3, .fill = fill, .may_refuse = false}).failure, "");
  EXPECT_EQ(play_hostile_chains(rig, {.queue = 2, .chains = 500, .answers = false}).failure, "");
}

INSTANTIATE_TEST_SUITE_P(Rigs, ConsoleDeviceTest,
                         testing::Combine(testing::Values(RigPlace::kThread, RigPlace::kInline,
                                                          RigPlace::kWorker),
                                          testing::Bool()),
                         [](const auto& rig) {
                           return name_of(std::get<0>(rig.param)) +
                                  (std::get<1>(rig.param) ? "Packed" : "");
                         });

TEST(ConsoleFilesTest, OpensFilesThatAreAlwaysReady) {
  const auto directory = std::filesystem::temp_directory_path() /
                         ("console_device_test." + std::to_string(::getpid()));
  std::filesystem::create_directory(directory);
  std::string content;
  while (content.size() < 300'000) content += std::to_string(content.size()) + " ";
  std::ofstream(directory / "in") << content;
  std::ofstream(directory / "out") << "before;";
  auto rig = crosvm::make_rig<ConsoleFactory>("ports=[[output=\"" + (directory / "out").string() +
                                              "\",input=\"" + (directory / "in").string() + "\"]]");
  std::string got;
  while (got.size() < content.size()) {
    rig.driver(0).send({writable(4096)});
    const RigUsed used = rig.driver(0).wait_used();
    ASSERT_TRUE(used.arrived);
    got += text_of(used);
  }
  EXPECT_EQ(got, content);
  rig.driver(1).send({readable("after")});
  ASSERT_TRUE(rig.driver(1).wait_used().arrived);
  std::string all;
  std::getline(std::ifstream(directory / "out"), all);
  EXPECT_EQ(all, "before;after");
  std::filesystem::remove_all(directory);
}

TEST(ConsoleFilesTest, ErrorsSayWhatHelps) {
  auto error_of = [](const std::string& text) {
    auto opened = device_type<ConsoleFactory>().open(text);
    return opened ? "no error" : opened.error().what();
  };
  EXPECT_THAT(error_of("ports=[[output=/nonexistent/out]]"), HasSubstr("make its directory first"));
  EXPECT_THAT(error_of("ports=[[input=/nonexistent]]"), HasSubstr("check the path"));
  EXPECT_THAT(error_of("ports=[[input=/tmp]]"), HasSubstr("it is a directory; name a file"));
}

TEST(ConsoleTurnsTest, AnEndlessInputDoesNotKeepTheLoop) {
  ConsoleResources resources;
  resources.inputs.push_back(*open_path("/dev/zero", O_RDONLY));
  auto rig =
      make_console("ports=[[input=zero]]", std::move(resources), {.place = RigPlace::kInline});
  for (int i = 0; i < 200; ++i) rig.driver(0).add({writable(4096)});
  rig.driver(0).kick();
  rig.run_once();
  size_t arrived = 0;
  while (rig.driver(0).try_used()) ++arrived;
  EXPECT_GT(arrived, 0u);
  EXPECT_LE(arrived, 64u) << "more than a few times 64 KiB in one turn of the loop";
}

}  // namespace
}  // namespace crosvm
