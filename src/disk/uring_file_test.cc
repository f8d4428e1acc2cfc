#include "disk/uring_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <functional>
#include <optional>

namespace crosvm {
namespace {

using Kind = FileOperation::Kind;

/// What an operation ended with.
struct Ending final : FileDone {
  void file_done(int64_t with) override {
    result = with;
    if (then) then();
  }
  std::optional<int64_t> result;
  std::function<void()> then;
};

class UringFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto ring = IoUring::create(8);
    if (!ring) GTEST_SKIP() << ring.error().what();
    loop_ = std::move(*EventLoop::create());
  }
  void open(const Fd& file) {
    auto ring = IoUring::create(8);
    ASSERT_TRUE(ring) << ring.error().what();
    ring_number_ = ring->descriptor().get();
    file_ = std::move(*make_async_file(*loop_, borrowed(file), std::move(*ring)));
    file_->on_batch([this] { ++batches_; });
  }
  template <class Condition>
  bool turn_until(Condition condition) {
    for (int turn = 0; turn < 500 && !condition(); ++turn) {
      EXPECT_TRUE(loop_->run_once(std::chrono::milliseconds(10)));
    }
    return condition();
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<AsyncFile> file_;
  int ring_number_ = -1;
  int batches_ = 0;
};

TEST_F(UringFileTest, TellsOfABatchAlthoughTheKernelTakesNothingMore) {
  std::array<int, 2> ends;
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);
  open(reader);
  char byte = 0;
  iovec buffer{&byte, 1};
  Ending first;
  // At offset -1, the only one that a pipe has.
  file_->queue(
      {.kind = Kind::kRead, .buffers = {&buffer, 1}, .offset = UINT64_MAX, .done = &first});
  file_->submit();
  EXPECT_FALSE(first.result);

  // The first operation ends while the kernel refuses the second: its descriptor is another's.
  const Fd ring(::fcntl(ring_number_, F_DUPFD_CLOEXEC, 0));
  ASSERT_EQ(::dup3(writer.get(), ring_number_, O_CLOEXEC), ring_number_);
  ASSERT_EQ(::write(writer.get(), "x", 1), 1);
  Ending second;
  file_->queue({.kind = Kind::kSync, .done = &second});
  for (int turn = 0; turn < 500 && !first.result; ++turn) {
    file_->submit();
    ::usleep(10'000);
  }
  EXPECT_EQ(first.result, 1);
  EXPECT_FALSE(second.result);
  EXPECT_EQ(batches_, 1);
  ASSERT_EQ(::dup3(ring.get(), ring_number_, O_CLOEXEC), ring_number_);
  EXPECT_TRUE(turn_until([&] { return second.result.has_value(); })) << "it tries again by itself";
  EXPECT_EQ(batches_, 2);
}

TEST_F(UringFileTest, WhatAnEndQueuesForAThreadBegins) {
  const Fd file(::memfd_create("uring_file_test", MFD_CLOEXEC));
  open(file);
  Ending discard;
  Ending sync;
  sync.then = [&] {
    file_->queue({.kind = Kind::kDiscardBlocks, .length = 4096, .done = &discard});
  };
  file_->queue({.kind = Kind::kSync, .done = &sync});
  file_->submit();
  ASSERT_TRUE(turn_until([&] { return discard.result.has_value(); }));
  EXPECT_EQ(*discard.result, -ENOTTY) << "no block device";
}

}  // namespace
}  // namespace crosvm
