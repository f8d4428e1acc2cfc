#include "jail/worker_commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/socket_pair.h"
#include "jail/worker_order.h"

namespace crosvm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class WorkerCommandsTest : public ::testing::Test {
 protected:
  WorkerCommandsTest() {
    FdPair pair = std::move(*make_socket_pair(SOCK_SEQPACKET | SOCK_NONBLOCK, "a test"));
    vmm_.emplace(std::move(pair.ours), kWorkerPackets);
    worker_.emplace(std::move(pair.theirs), kWorkerPackets);
  }
  void ask(const std::string& name, std::vector<Fd> fds = {}) {
    commands_.ask({.name = name, .arguments = "of " + name, .fds = std::move(fds)},
                  [this, name](const Result<std::string>& said) {
                    said_.push_back(name + ": " + (said ? *said : said.error().what()));
                    codes_.push_back(said ? std::errc() : said.error().code());
                  });
  }
  /// What the process is asked for by now; nothing: it is left alone.
  std::optional<DeviceCommand> heard() {
    auto packet = worker_->receive();
    if (!packet) return std::nullopt;
    return std::move(*decode_device_command(std::move(**packet)));
  }

  std::optional<PacketSocket> vmm_;
  std::optional<PacketSocket> worker_;
  std::vector<std::string> said_;
  std::vector<std::errc> codes_;
  WorkerCommands commands_{"block0"};
};

TEST_F(WorkerCommandsTest, OneAtATimeInOrderOnceTheProcessServes) {
  std::vector<Fd> fds;
  fds.push_back(std::move(*make_eventfd()));
  ask("first", std::move(fds));
  ask("second");
  EXPECT_FALSE(heard());
  commands_.serve(*vmm_);
  auto first = heard();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->name, "first");
  EXPECT_EQ(first->arguments, "of first");
  ASSERT_EQ(first->fds.size(), 1u);
  signal_eventfd(first->fds[0]);
  EXPECT_FALSE(heard()) << "the second waits";
  EXPECT_TRUE(commands_.answered(encode_command_answer(std::string("done"))));
  EXPECT_EQ(heard()->name, "second");
  EXPECT_TRUE(
      commands_.answered(encode_command_answer(fail(Error(std::errc::io_error, "no, broken")))));
  EXPECT_THAT(said_, ElementsAre("first: done", "second: no, broken"));
  EXPECT_THAT(codes_, ElementsAre(std::errc(), std::errc::io_error));
}

TEST_F(WorkerCommandsTest, WhatTheProcessWasAskedIsLostWithItAndTheRestWaitsForTheNext) {
  commands_.serve(*vmm_);
  ask("first");
  ask("second");
  commands_.lost();
  EXPECT_THAT(said_, ElementsAre("first: block0: its process ended before it had an answer; ask "
                                 "again"));
  EXPECT_EQ(heard()->name, "first");
  ask("third");
  EXPECT_FALSE(heard());
  commands_.serve(*vmm_);
  EXPECT_EQ(heard()->name, "second");
  commands_.close();
  EXPECT_THAT(codes_, testing::Each(std::errc::not_connected));
  EXPECT_EQ(said_.size(), 3u);
  ask("late");
  EXPECT_EQ(said_.back(), "late: block0: the device has no process");
}

TEST_F(WorkerCommandsTest, NoMoreThanSomeWait) {
  for (size_t i = 0; i < WorkerCommands::kMost; ++i) ask("patience");
  EXPECT_THAT(said_, IsEmpty());
  ask("too-much");
  EXPECT_THAT(said_, ElementsAre(HasSubstr("too-much: block0: 64 commands wait")));
  EXPECT_THAT(codes_, ElementsAre(std::errc::device_or_resource_busy));
}

TEST_F(WorkerCommandsTest, OneThatIsTooLargeIsRefusedAndTheNextGoesOut) {
  commands_.serve(*vmm_);
  commands_.ask({.name = "huge", .arguments = std::string(kWorkerPackets.bytes, 'x'), .fds = {}},
                [this](const Result<std::string>& said) { codes_.push_back(said.error().code()); });
  EXPECT_THAT(codes_, ElementsAre(std::errc::message_size));
  ask("small");
  EXPECT_EQ(heard()->name, "small");
}

TEST_F(WorkerCommandsTest, AProcessThatHasGoneIsAnError) {
  worker_.reset();
  commands_.serve(*vmm_);
  ask("anything");
  EXPECT_THAT(said_, ElementsAre(HasSubstr("anything: block0: ")));
}

TEST_F(WorkerCommandsTest, WhatIsNoAnswerIsNotTaken) {
  commands_.serve(*vmm_);
  EXPECT_FALSE(commands_.answered(encode_command_answer(std::string("unasked"))));
  ask("something");
  for (const char* text :
       {"", "[]", "{}", "{\"answer\":1}", "{\"error\":\"x\"}", "{\"error\":\"x\",\"code\":0}",
        "{\"error\":\"x\",\"code\":-5}", "{\"error\":7,\"code\":5}"}) {
    EXPECT_FALSE(commands_.answered({.text = text, .fds = {}})) << text;
  }
  EXPECT_THAT(said_, IsEmpty());
  commands_.lost();
  EXPECT_EQ(said_.size(), 1u);
}

TEST(DeviceCommandTest, AnswersThatAreTooLongBecomeErrors) {
  const Packet packet = encode_command_answer(std::string(kWorkerPackets.bytes, 'x'));
  EXPECT_LE(packet.text.size(), kWorkerPackets.bytes);
  auto answer = decode_command_answer(packet);
  ASSERT_TRUE(answer);
  ASSERT_FALSE(*answer);
  EXPECT_EQ(answer->error().code(), std::errc::message_size);
}

TEST(DeviceCommandTest, ACallbackIsSurelyCalledOnce) {
  std::vector<bool> calls;
  {
    CommandDone done = surely([&](const Result<std::string>& said) { calls.push_back(!!said); });
    CommandDone copy = done;
    copy(std::string());
    done(std::string());
  }
  EXPECT_THAT(calls, ElementsAre(true));
  {
    CommandDone done = surely([&](const Result<std::string>& said) { calls.push_back(!!said); });
  }
  EXPECT_THAT(calls, ElementsAre(true, false));
}

}  // namespace
}  // namespace crosvm
