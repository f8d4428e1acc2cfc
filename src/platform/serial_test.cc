#include "platform/serial.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/event_loop.h"

namespace crosvm {
namespace {

using std::chrono::milliseconds;

/// Keeps what the guest sent, or fails like a closed pipe.
class RecordingOutput : public SerialOutput {
 public:
  struct Record {
    std::vector<std::string> writes;
    bool broken = false;
  };
  explicit RecordingOutput(Record& record) : record_(record) {}
  Result<void> write(std::span<const std::byte> bytes) override {
    if (record_.broken) return fail(Error::from_errno("writing", "record", EPIPE));
    record_.writes.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }

 private:
  Record& record_;
};

class SerialTest : public ::testing::Test {
 protected:
  SerialTest() {
    Fd irq = *make_eventfd();
    irq_ = *irq.duplicate();
    serial_ = std::make_unique<Serial>(std::move(irq), std::make_unique<RecordingOutput>(record_));
  }

  /// Gives the port an input that ends in our hands.
  void attach_input() {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    typed_ = Fd(ends[1]);
    loop_ = *EventLoop::create();
    Fd irq = *make_eventfd();
    irq_ = *irq.duplicate();
    serial_ = std::make_unique<Serial>(
        std::move(irq), std::make_unique<RecordingOutput>(record_),
        std::make_unique<SerialInput>(*loop_, Fd(ends[0]), "the test's pipe"));
  }

  void type(std::string_view text) {
    ASSERT_EQ(::write(typed_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

  void run_loop() {
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(loop_->run_once(milliseconds(5)));
  }

  uint8_t read(uint64_t offset) {
    std::byte value{0};
    serial_->read(offset, std::span(&value, 1));
    return std::to_integer<uint8_t>(value);
  }

  void write(uint64_t offset, uint8_t value) {
    std::byte byte{value};
    serial_->write(offset, std::span(&byte, 1));
  }

  uint64_t interrupts() { return drain_eventfd(irq_); }

  RecordingOutput::Record record_;
  Fd irq_;
  Fd typed_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Serial> serial_;
};

TEST_F(SerialTest, ResetValues) {
  const uint8_t expected[] = {0x00, 0x00, 0xc1, 0x03, 0x08, 0x60, 0xb0, 0x00};
  for (uint64_t offset = 0; offset < 8; ++offset) EXPECT_EQ(read(offset), expected[offset]);
  EXPECT_EQ(interrupts(), 0u);
}

TEST_F(SerialTest, StoredRegistersReadBack) {
  for (int value = 0; value < 256; ++value) {
    const auto byte = static_cast<uint8_t>(value);
    write(7, byte);
    write(4, byte);
    write(1, byte);
    EXPECT_EQ(read(7), byte);
    EXPECT_EQ(read(4), byte);
    EXPECT_EQ(read(1), byte & 0x0f);
    write(3, byte);
    EXPECT_EQ(read(3), byte);
    write(3, 0x03);
  }
}

TEST_F(SerialTest, ReadOnlyRegistersIgnoreWrites) {
  write(2, 0xc7);
  write(5, 0xff);
  write(6, 0xff);
  EXPECT_EQ(read(2), 0xc1);
  EXPECT_EQ(read(5), 0x60);
  EXPECT_EQ(read(6), 0xb0);
}

TEST_F(SerialTest, DivisorHidesDataAndInterruptEnable) {
  write(1, 0x05);
  write(3, 0x83);
  EXPECT_EQ(read(0), 12);
  EXPECT_EQ(read(1), 0);
  write(0, 0x34);
  write(1, 0x12);
  EXPECT_EQ(read(0), 0x34);
  EXPECT_EQ(read(1), 0x12);
  write(3, 0x03);
  EXPECT_EQ(read(0), 0);
  EXPECT_EQ(read(1), 0x05);
  EXPECT_TRUE(record_.writes.empty());
}

TEST_F(SerialTest, OnlyOneByteAccessesCount) {
  for (size_t size : {0u, 2u, 4u, 8u}) {
    for (uint64_t offset = 0; offset < 8; ++offset) {
      std::vector<std::byte> data(size);
      serial_->read(offset, data);
      EXPECT_EQ(data, std::vector<std::byte>(size)) << size << " at " << offset;
      data.assign(size, std::byte{0x41});
      serial_->write(offset, data);
    }
  }
  EXPECT_TRUE(record_.writes.empty());
  EXPECT_EQ(read(3), 0x03);
  EXPECT_EQ(read(7), 0x00);
}

TEST_F(SerialTest, OffsetsPastTheRegistersAreIgnored) {
  write(8, 0xff);
  write(~uint64_t{0}, 0xff);
  EXPECT_EQ(read(8), 0);
}

TEST_F(SerialTest, EachByteIsPassedOnAtOnce) {
  for (char c : std::string("a\n\xff")) write(0, static_cast<uint8_t>(c));
  EXPECT_EQ(record_.writes, (std::vector<std::string>{"a", "\n", "\xff"}));
  EXPECT_EQ(interrupts(), 0u);  // not asked for
}

TEST_F(SerialTest, TransmitInterruptAtEveryByteAndWhenEnabled) {
  write(1, 0x02);
  EXPECT_EQ(interrupts(), 1u);
  EXPECT_EQ(read(2), 0xc2);
  EXPECT_EQ(read(2), 0xc1);
  write(1, 0x02);  // no change
  EXPECT_EQ(interrupts(), 0u);
  write(1, 0x0a);  // another bit changed
  EXPECT_EQ(interrupts(), 1u);
  write(0, 'x');
  write(0, 'y');
  EXPECT_EQ(interrupts(), 2u);
  EXPECT_EQ(read(2), 0xc2);
  write(1, 0x08);  // disabled: a change without interrupt
  write(0, 'z');
  EXPECT_EQ(interrupts(), 0u);
}

TEST_F(SerialTest, ALostByteDoesNotStopTheGuestsTransmitter) {
  write(1, 0x02);
  interrupts();
  record_.broken = true;
  write(0, 'x');
  EXPECT_EQ(interrupts(), 1u);
  EXPECT_EQ(read(2), 0xc2);
}

TEST_F(SerialTest, LoopbackModemLines) {
  const std::pair<uint8_t, uint8_t> lines[] = {{0x10, 0x00}, {0x11, 0x20}, {0x12, 0x10},
                                               {0x14, 0x40}, {0x18, 0x80}, {0x1f, 0xf0}};
  for (auto [control, status] : lines) {
    write(4, control);
    EXPECT_EQ(read(6), status) << int{control};
  }
  write(4, 0x1a);  // what a driver's probe does
  EXPECT_EQ(read(6) & 0xf0, 0x90);
}

TEST_F(SerialTest, LoopbackKeeps64BytesAndRaisesOnlyReceive) {
  write(1, 0x03);
  read(2);
  interrupts();
  write(4, 0x10);
  for (int i = 0; i < 70; ++i) write(0, static_cast<uint8_t>(i));
  EXPECT_EQ(interrupts(), 64u);
  EXPECT_EQ(read(2), 0xc4);
  EXPECT_TRUE(record_.writes.empty());
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(read(5), 0x61);
    EXPECT_EQ(read(0), i);
  }
  EXPECT_EQ(read(5), 0x60);
  EXPECT_EQ(read(0), 0);
}

TEST_F(SerialTest, EnablingReceiveWithDataWaitingInterrupts) {
  write(4, 0x10);
  write(0, 'q');
  EXPECT_EQ(interrupts(), 0u);
  EXPECT_EQ(read(2), 0xc1);
  write(1, 0x01);
  EXPECT_EQ(interrupts(), 1u);
  EXPECT_EQ(read(2), 0xc4);
}

TEST_F(SerialTest, IdentificationIsNotPrioritised) {
  write(4, 0x10);
  write(0, 'q');
  write(1, 0x03);
  EXPECT_EQ(read(2), 0xc6);
  EXPECT_EQ(read(2), 0xc1);
}

TEST_F(SerialTest, TakingTheLastByteClearsTheReceiveIndication) {
  write(1, 0x01);
  write(4, 0x10);
  write(0, 'a');
  EXPECT_EQ(read(0), 'a');
  EXPECT_EQ(read(2), 0xc1);
}

TEST_F(SerialTest, TakingAByteWhileOthersWaitKeepsTheReceiveIndication) {
  write(1, 0x01);
  write(4, 0x10);
  write(0, 'a');
  write(0, 'b');
  EXPECT_EQ(read(2), 0xc4);
  EXPECT_EQ(read(0), 'a');
  EXPECT_EQ(read(2), 0xc4);  // a driver that stopped early comes back for it
  EXPECT_EQ(read(0), 'b');
  EXPECT_EQ(read(2), 0xc1);
}

TEST_F(SerialTest, InputStartsAtTheFirstRead) {
  attach_input();
  write(1, 0x01);
  type("ok");
  run_loop();
  EXPECT_EQ(interrupts(), 0u);
  read(7);
  run_loop();
  EXPECT_EQ(interrupts(), 1u);
  EXPECT_EQ(read(2), 0xc4);
  EXPECT_EQ(read(5), 0x61);
  EXPECT_EQ(read(0), 'o');
  EXPECT_EQ(read(0), 'k');
  EXPECT_EQ(read(5), 0x60);
}

TEST_F(SerialTest, InputWithoutReceiveInterruptIsPolled) {
  attach_input();
  read(5);
  type("p");
  run_loop();
  EXPECT_EQ(interrupts(), 0u);
  EXPECT_EQ(read(5), 0x61);
  EXPECT_EQ(read(0), 'p');
}

TEST_F(SerialTest, InputIsTakenNoFasterThanTheGuestReads) {
  attach_input();
  read(5);
  std::string sent;
  for (int i = 0; i < 1000; ++i) sent += static_cast<char>('a' + i % 26);
  type(sent);
  run_loop();
  std::string got;
  while ((read(5) & 1) != 0) got += static_cast<char>(read(0));
  EXPECT_EQ(got, sent.substr(0, 64));  // the rest is still in the pipe
  for (int i = 0; i < 100 && got.size() < sent.size(); ++i) {
    ASSERT_TRUE(loop_->run_once(milliseconds(5)));
    while ((read(5) & 1) != 0) got += static_cast<char>(read(0));
  }
  EXPECT_EQ(got, sent);
}

TEST_F(SerialTest, InputWaitsForTheEndOfLoopback) {
  attach_input();
  write(4, 0x10);
  read(5);
  type("later");
  run_loop();
  EXPECT_EQ(read(5), 0x60);
  write(4, 0x00);
  run_loop();
  EXPECT_EQ(read(0), 'l');
}

TEST_F(SerialTest, EndOfFileEndsTheInputAndLeavesTheLoopIdle) {
  attach_input();
  read(5);
  type("last");
  typed_ = Fd();
  run_loop();
  std::string got;
  while ((read(5) & 1) != 0) got += static_cast<char>(read(0));
  EXPECT_EQ(got, "last");
  const auto before = EventLoop::Clock::now();
  ASSERT_TRUE(loop_->run_once(milliseconds(30)));
  EXPECT_GE(EventLoop::Clock::now() - before, milliseconds(25));  // does not spin
}

TEST_F(SerialTest, AnOutputThatWaitsDoesNotHoldUpInput) {
  attach_input();
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  Fd reader(ends[0]);
  const std::vector<char> full(1 << 20);
  ASSERT_GT(::write(ends[1], full.data(), full.size()), 0);
  Fd stop = *make_eventfd();
  int in[2];
  ASSERT_EQ(::pipe2(in, O_CLOEXEC | O_NONBLOCK), 0);
  typed_ = Fd(in[1]);
  serial_ =
      std::make_unique<Serial>(*irq_.duplicate(), *make_fd_output(Fd(ends[1]), stop, "a full pipe"),
                               std::make_unique<SerialInput>(*loop_, Fd(in[0]), "the test's pipe"));
  write(1, 0x01);
  read(5);
  std::atomic<bool> sent = false;
  std::thread vcpu([&] {
    write(0, 'x');
    sent = true;
  });
  type("i");
  run_loop();
  EXPECT_EQ(interrupts(), 1u);  // input arrived
  EXPECT_FALSE(sent);
  signal_eventfd(stop);  // the VM ends
  vcpu.join();
  EXPECT_TRUE(sent);
}

TEST_F(SerialTest, RandomAccessesKeepTheInvariants) {
  attach_input();
  std::mt19937 random(16550);
  for (int i = 0; i < 100000; ++i) {
    const uint64_t offset = random() % 9;
    if (i % 1000 == 0) {
      type("some input for the guest");
      ASSERT_TRUE(loop_->run_once(milliseconds(0)));
    }
    switch (random() % 8) {
      case 0: {
        std::vector<std::byte> wide(random() % 9);
        serial_->write(offset, wide);
        serial_->read(offset, wide);
        break;
      }
      case 1:
      case 2:
      case 3:
        write(offset, static_cast<uint8_t>(random()));
        break;
      default:
        read(offset);
    }
    ASSERT_EQ(read(5) & 0xfe, 0x60);
    ASSERT_EQ(read(2) & 0xf8, 0xc0);
    drain_eventfd(irq_);
    if (record_.writes.size() > 1000) record_.writes.clear();
    if (i % 1000 == 999) {  // drain what was typed, or the pipe fills
      write(4, 0x00);
      write(3, 0x03);
      for (int j = 0; j < 4; ++j) {
        while ((read(5) & 1) != 0) read(0);
        ASSERT_TRUE(loop_->run_once(milliseconds(0)));
      }
    }
  }
}

TEST_F(SerialTest, InputAndRegistersFromTwoThreads) {
  attach_input();
  constexpr int kBytes = 20000;
  std::thread runner([&] { ASSERT_TRUE(loop_->run()); });
  std::thread typist([&] {
    for (int i = 0; i < kBytes; ++i) {
      const char c = static_cast<char>(i % 251);
      while (::write(typed_.get(), &c, 1) != 1) std::this_thread::yield();
    }
  });
  write(1, 0x01);
  int got = 0;
  const auto deadline = EventLoop::Clock::now() + std::chrono::seconds(60);
  while (got < kBytes && EventLoop::Clock::now() < deadline) {
    if ((read(5) & 1) == 0) {
      std::this_thread::yield();
      continue;
    }
    ASSERT_EQ(read(0), got % 251);
    ++got;
  }
  EXPECT_EQ(got, kBytes);
  typist.join();
  loop_->stop();
  runner.join();
}

}  // namespace
}  // namespace crosvm
