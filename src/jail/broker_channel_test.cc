#include "jail/broker_channel.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <thread>

#include "base/socket_pair.h"
#include "jail/worker_order.h"

namespace crosvm {
namespace {

using testing::HasSubstr;

/// Gives out files that hold the name that was asked for.
class EchoBroker : public FileBroker {
 public:
  explicit EchoBroker(unsigned& asked) : asked_(asked) {}
  Result<File> open(const Request& request) override {
    ++asked_;
    if (request.name == "no") return fail(Error(std::errc::permission_denied, "no: not this one"));
    Fd file(::memfd_create("echo", MFD_CLOEXEC));
    EXPECT_TRUE(write_full(file, std::as_bytes(std::span(request.name)), "echo"));
    return File{.number = request.from + 1, .object = "echo", .fd = std::move(file)};
  }

 private:
  unsigned& asked_;
};

class BrokerChannelTest : public ::testing::Test {
 protected:
  BrokerChannelTest() {
    FdPair pair = std::move(*make_socket_pair(SOCK_SEQPACKET, "a test"));
    vmm_.emplace(std::move(pair.ours), kWorkerPackets);
    worker_.emplace(std::move(pair.theirs), kWorkerPackets);
  }
  /// What the worker gets when it asks `desk`.
  Result<FileBroker::File> ask(BrokerDesk& desk, const FileBroker::Request& request) {
    std::thread vmm([&] {
      auto packet = vmm_->receive();
      ASSERT_TRUE(packet && *packet);
      ASSERT_TRUE(BrokerDesk::concerns(**packet));
      ASSERT_TRUE(vmm_->send(desk.answer(**packet)));
    });
    auto file = ChannelBroker(*worker_).open(request);
    vmm.join();
    return file;
  }
  std::unique_ptr<FileBroker> broker() { return std::make_unique<EchoBroker>(asked_); }
  static std::string contents(const FileBroker::File& file) {
    std::string text(64, '\0');
    text.resize(*read_full_at(file.fd, 0, std::as_writable_bytes(std::span(text)), "file"));
    return text;
  }

  std::optional<PacketSocket> vmm_, worker_;
  unsigned asked_ = 0;
};

TEST_F(BrokerChannelTest, BringsTheFileOrTheReason) {
  BrokerDesk desk(broker(), false);
  const std::string odd("a\xff\"\n", 4);  // no text that JSON could hold
  auto file = ask(desk, {.from = 3, .name = odd, .writable = true});
  ASSERT_TRUE(file) << file.error().what();
  EXPECT_EQ(file->number, 4u);
  EXPECT_EQ(file->object, "echo");
  EXPECT_EQ(contents(*file), odd);
  auto refused = ask(desk, {.name = "no"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().what(), "no: not this one");
  EXPECT_EQ(refused.error().code(), std::errc::permission_denied);
}

TEST_F(BrokerChannelTest, ASuccessorGetsWhatTheFirstOneAskedFor) {
  BrokerDesk desk(broker(), true);
  ASSERT_TRUE(ask(desk, {.name = "base"}));
  desk.close();
  auto again = ask(desk, {.name = "base"});
  ASSERT_TRUE(again) << again.error().what();
  EXPECT_EQ(contents(*again), "base");
  EXPECT_EQ(asked_, 1u);
  auto other = ask(desk, {.name = "base", .writable = true});
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().what(), HasSubstr("did not name when the VM started"));
}

TEST_F(BrokerChannelTest, NobodyOpensWithoutABroker) {
  BrokerDesk desk(nullptr, false);
  EXPECT_FALSE(ask(desk, {.name = "base"}));
}

TEST_F(BrokerChannelTest, WhatIsNoRequestIsAnAnswer) {
  EXPECT_FALSE(BrokerDesk::concerns(encode_worker_failed(Error::invalid("open"))));
  EXPECT_FALSE(BrokerDesk::concerns({.text = "\"open\"", .fds = {}}));
  EXPECT_FALSE(BrokerDesk::concerns({.text = "{\"open\"", .fds = {}}));
  BrokerDesk desk(broker(), false);
  auto answer = desk.answer({.text = "{\"open\":[300],\"from\":0,\"writable\":false}", .fds = {}});
  EXPECT_FALSE(decode_worker_answer(answer));
  EXPECT_EQ(asked_, 0u);
}

}  // namespace
}  // namespace crosvm
