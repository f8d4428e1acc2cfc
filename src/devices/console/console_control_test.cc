#include "devices/console/console_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "devices/console/console_test_host.h"

namespace crosvm {
namespace {

using Message = ConsoleDriver::Message;

Message size_message(uint32_t port, ConsoleSize size) {
  return {port, VIRTIO_CONSOLE_RESIZE, 1,
          std::string(reinterpret_cast<const char*>(&size), sizeof(size))};
}

/// Two ports: a console on a terminal, and one named "agent" on a socket.
class ConsoleControlTest : public testing::TestWithParam<RigPlace> {
 protected:
  Rig make_rig(uint64_t refused = 0) {
    ConsoleResources resources;
    auto [size_reader, size_writer] = make_test_pipe();
    auto [theirs, ours] = make_test_socket();
    sizes_ = std::move(size_writer);
    agent_ = std::move(ours);
    auto [from_guest, output] = make_test_pipe();
    auto [input, to_guest] = make_test_pipe();
    from_guest_ = std::move(from_guest);
    to_guest_ = std::move(to_guest);
    resources.sizes.push_back(std::move(size_reader));
    resources.outputs.push_back(std::move(output));
    resources.outputs.push_back(*theirs.duplicate());
    resources.inputs.push_back(std::move(input));
    resources.inputs.push_back(std::move(theirs));
    return make_console(
        "ports=[[output=o,input=i,sizes=s,console],[output=a,input=a,name=agent]],queue-sizes=[64,"
        "32]",
        std::move(resources), {.place = GetParam(), .refused_features = refused});
  }
  void set_size(ConsoleSize size) {
    ASSERT_EQ(::write(sizes_.get(), &size, sizeof(size)), ssize_t{sizeof(size)});
  }
  Fd sizes_, agent_, from_guest_, to_guest_;
};

TEST_P(ConsoleControlTest, OffersItsPorts) {
  auto rig = make_rig();
  EXPECT_EQ(rig.info().features & 7, 7u);
  EXPECT_EQ(rig.info().queue_sizes, (std::vector<uint16_t>{64, 32, 64, 32, 64, 32}));
  virtio_console_config config;
  std::memcpy(&config, rig.info().config.data(), sizeof(config));
  EXPECT_EQ(config.max_nr_ports, 2u);
}

TEST_P(ConsoleControlTest, IntroducesEachPort) {
  auto rig = make_rig();
  ConsoleDriver driver(rig);
  EXPECT_TRUE(driver.silent());
  driver.say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
  EXPECT_EQ(driver.next(), (Message{0, VIRTIO_CONSOLE_PORT_ADD, 1, ""}));
  EXPECT_EQ(driver.next(), (Message{1, VIRTIO_CONSOLE_PORT_ADD, 1, ""}));
  EXPECT_EQ(driver.next(), (Message{1, VIRTIO_CONSOLE_PORT_NAME, 1, "agent"}));
  EXPECT_TRUE(driver.silent());
  driver.say(0, VIRTIO_CONSOLE_PORT_READY, 1);
  EXPECT_EQ(driver.next(), (Message{0, VIRTIO_CONSOLE_PORT_OPEN, 1, ""}));
  EXPECT_EQ(driver.next(), (Message{0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, ""}));
  driver.say(1, VIRTIO_CONSOLE_PORT_READY, 1);
  EXPECT_EQ(driver.next(), (Message{1, VIRTIO_CONSOLE_PORT_OPEN, 1, ""}));
  EXPECT_TRUE(driver.silent());
}

TEST_P(ConsoleControlTest, EachPortHasItsOwnQueues) {
  auto rig = make_rig();
  ConsoleDriver driver(rig);
  driver.open(1);
  rig.driver(5).send({readable("hello host")});
  ASSERT_TRUE(rig.driver(5).wait_used().arrived);
  EXPECT_EQ(receive(rig, agent_, 10), "hello host");
  rig.driver(4).send({writable(64)});
  send_all(agent_, "hello guest");
  EXPECT_EQ(text_of(rig.driver(4).wait_used()), "hello guest");
  rig.driver(1).send({readable("console")});
  EXPECT_EQ(receive(rig, from_guest_, 7), "console");
}

TEST_P(ConsoleControlTest, InputWaitsForTheGuestToOpenThePort) {
  auto rig = make_rig();
  ConsoleDriver driver(rig);
  send_all(agent_, "early");
  rig.driver(4).send({writable(64)});
  rig.settle();
  EXPECT_FALSE(rig.driver(4).wait_used(std::chrono::milliseconds(20)).arrived);
  driver.open(1);
  EXPECT_EQ(text_of(rig.driver(4).wait_used()), "early");
  driver.say(1, VIRTIO_CONSOLE_PORT_OPEN, 0);
  send_all(agent_, "closed");
  rig.driver(4).send({writable(64)});
  rig.settle();
  EXPECT_FALSE(rig.driver(4).wait_used(std::chrono::milliseconds(20)).arrived);
}

TEST_P(ConsoleControlTest, TellsThatTheHostHasGone) {
  auto rig = make_rig();
  ConsoleDriver driver(rig);
  driver.open(1);
  rig.driver(4).send({writable(64)});
  send_all(agent_, "bye");
  agent_ = Fd();
  EXPECT_EQ(text_of(rig.driver(4).wait_used()), "bye");
  rig.driver(4).send({writable(64)});
  EXPECT_EQ(driver.next(), (Message{1, VIRTIO_CONSOLE_PORT_OPEN, 0, ""}));
  rig.driver(5).send({readable("into the void")});
  EXPECT_TRUE(rig.driver(5).wait_used().arrived);
}

TEST_P(ConsoleControlTest, TellsTheSizeOnceThePortIsReady) {
  auto rig = make_rig();
  ConsoleDriver driver(rig);
  const unsigned seen = rig.config_changes();
  set_size({.cols = 80, .rows = 25});
  set_size({.cols = 132, .rows = 43});
  ASSERT_TRUE(rig.wait_config_change(seen));
  rig.settle();
  driver.say(0, VIRTIO_CONSOLE_PORT_READY, 1);
  EXPECT_EQ(driver.next().event, VIRTIO_CONSOLE_PORT_OPEN);
  EXPECT_EQ(driver.next().event, VIRTIO_CONSOLE_CONSOLE_PORT);
  Message size = driver.next();
  // On a thread the two sizes may arrive one after the other.
  if (size == size_message(0, {.cols = 80, .rows = 25})) size = driver.next();
  EXPECT_EQ(size, size_message(0, {.cols = 132, .rows = 43}));
  set_size({.cols = 100, .rows = 50});
  EXPECT_EQ(driver.next(), size_message(0, {.cols = 100, .rows = 50}));
  // Another process tells of its configuration on another way.
  virtio_console_config config;
  unsigned changes = 0;
  do {
    changes = rig.config_changes();
    std::memcpy(&config, rig.config().data(), sizeof(config));
  } while (config.cols != 100 && rig.wait_config_change(changes));
  EXPECT_EQ(config.cols, 100);
  EXPECT_EQ(config.rows, 50);
}

TEST_P(ConsoleControlTest, WithoutControlQueuesPort0IsAConsole) {
  auto rig = make_rig(1U << VIRTIO_CONSOLE_F_MULTIPORT);
  send_all(to_guest_, "typed");
  rig.driver(0).send({writable(16)});
  EXPECT_EQ(text_of(rig.driver(0).wait_used()), "typed");
  rig.driver(1).send({readable("shown")});
  EXPECT_EQ(receive(rig, from_guest_, 5), "shown");
}

TEST_P(ConsoleControlTest, NonsenseIsAnsweredWithNothing) {
  auto rig = make_rig();
  ConsoleDriver driver(rig);
  driver.say(2, VIRTIO_CONSOLE_PORT_READY, 1);
  driver.say(~0U, VIRTIO_CONSOLE_PORT_OPEN, 1);
  driver.say(0, VIRTIO_CONSOLE_DEVICE_READY, 0);
  driver.say(0, VIRTIO_CONSOLE_PORT_READY, 7);
  driver.say(0, 77, 1);
  rig.driver(3).send({readable("short")});
  EXPECT_TRUE(rig.driver(3).wait_used().arrived);
  rig.driver(3).send({writable(8)});
  EXPECT_TRUE(rig.driver(3).wait_used().arrived);
  EXPECT_TRUE(driver.silent());
  EXPECT_FALSE(rig.needs_reset());
}

TEST_P(ConsoleControlTest, ABufferThatIsTooSmallComesBackEmpty) {
  auto rig = make_rig();
  rig.driver(2).send({writable(7)});
  const virtio_console_control ready{.id = 1, .event = VIRTIO_CONSOLE_PORT_READY, .value = 1};
  rig.driver(3).send({readable(ready)});
  const RigUsed used = rig.driver(2).wait_used();
  EXPECT_TRUE(used.arrived);
  EXPECT_EQ(used.written, 0u);
}

TEST_P(ConsoleControlTest, WhatIsAskedForAThousandTimesIsToldOnce) {
  auto rig = make_rig();
  const virtio_console_control ready{.id = 0, .event = VIRTIO_CONSOLE_DEVICE_READY, .value = 1};
  for (int i = 0; i < 1000; ++i) {
    rig.driver(3).send({readable(ready)});
    ASSERT_TRUE(rig.driver(3).wait_used().arrived);
  }
  ConsoleDriver driver(rig);  // which gives buffers only now
  for (int i = 0; i < 3; ++i) EXPECT_EQ(driver.next().value, 1);
  EXPECT_TRUE(driver.silent());
}

TEST_P(ConsoleControlTest, AResetForgetsTheDriver) {
  auto rig = make_rig();
  {
    ConsoleDriver driver(rig);
    driver.open(1);
  }
  rig.reset();
  send_all(agent_, "kept");
  rig.driver(4).send({writable(64)});
  rig.settle();
  EXPECT_FALSE(rig.driver(4).wait_used(std::chrono::milliseconds(20)).arrived);
  ConsoleDriver driver(rig);
  driver.open(1);
  EXPECT_EQ(text_of(rig.driver(4).wait_used()), "kept");
}

INSTANTIATE_TEST_SUITE_P(Rigs, ConsoleControlTest,
                         testing::Values(RigPlace::kThread, RigPlace::kInline, RigPlace::kWorker),
                         [](const auto& rig) { return name_of(rig.param); });

}  // namespace
}  // namespace crosvm
