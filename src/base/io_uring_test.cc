#include "base/io_uring.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <thread>

#include "base/restricted_ring.h"

namespace crosvm {
namespace {

using testing::HasSubstr;

// Where the kernel or a filter refuses io_uring these tests have nothing to look at.
#define MAKE_RING(name, entries)                                \
  auto name##_made = IoUring::create(entries);                  \
  if (!name##_made) GTEST_SKIP() << name##_made.error().what(); \
  IoUring name = std::move(*name##_made)

Fd memory_file(uint64_t size) {
  Fd fd(::memfd_create("io_uring_test", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size)), 0);
  return fd;
}

IoUring::Completion wait_one(IoUring& ring) {
  IoUring::Completion completion;
  while (!ring.reap(completion)) {
    pollfd waited{.fd = ring.descriptor().get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&waited, 1, 10'000), 1) << "no completion";
  }
  return completion;
}

template <size_t N>
iovec buffer_of(std::array<char, N>& bytes) {
  return {bytes.data(), bytes.size()};
}

TEST(IoUringTest, WritesAndReadsBack) {
  MAKE_RING(ring, 8);
  Fd file = memory_file(0);
  std::array<char, 3> first = {'a', 'b', 'c'};
  std::array<char, 2> second = {'d', 'e'};
  std::array<iovec, 2> out = {buffer_of(first), buffer_of(second)};
  ASSERT_TRUE(ring.writev(file, out.data(), out.size(), 10, 7));
  EXPECT_EQ(ring.in_flight(), 1U);
  ASSERT_TRUE(ring.submit());
  IoUring::Completion written = wait_one(ring);
  EXPECT_EQ(written.token, 7U);
  EXPECT_EQ(written.result, 5);

  std::array<char, 4> back = {};
  iovec in = buffer_of(back);
  ASSERT_TRUE(ring.readv(file, &in, 1, 12, UINT64_MAX));
  ASSERT_TRUE(ring.submit());
  IoUring::Completion read = wait_one(ring);
  EXPECT_EQ(read.token, UINT64_MAX);
  EXPECT_EQ(read.result, 3);  // the end of the file
  EXPECT_EQ(std::string_view(back.data(), 3), "cde");
  EXPECT_EQ(ring.in_flight(), 0U);
}

TEST(IoUringTest, SyncsAndPunchesHoles) {
  MAKE_RING(ring, 8);
  Fd file = memory_file(1 << 20);
  ASSERT_EQ(::fallocate(file.get(), 0, 0, 1 << 20), 0);
  ASSERT_TRUE(ring.fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 19, 1));
  ASSERT_TRUE(ring.fsync(file, true, 2));
  ASSERT_TRUE(ring.submit());
  EXPECT_EQ(wait_one(ring).result, 0);
  EXPECT_EQ(wait_one(ring).result, 0);
  struct stat status;
  ASSERT_EQ(::fstat(file.get(), &status), 0);
  EXPECT_EQ(status.st_blocks, (1 << 19) / 512);
}

TEST(IoUringTest, AnErrorIsMinusErrno) {
  MAKE_RING(ring, 8);
  std::array<char, 1> byte = {};
  iovec in = buffer_of(byte);
  Fd closed;
  ASSERT_TRUE(ring.readv(closed, &in, 1, 0, 1));
  ASSERT_TRUE(ring.submit());
  EXPECT_EQ(wait_one(ring).result, -EBADF);
}

TEST(IoUringTest, RefusesMoreThanItsQueuesHold) {
  MAKE_RING(ring, 4);
  Fd file = memory_file(4096);
  std::array<char, 1> byte = {};
  iovec in = buffer_of(byte);
  uint32_t accepted = 0;
  for (int round = 0; round < 4; ++round) {
    while (ring.readv(file, &in, 1, 0, accepted)) ++accepted;
    ASSERT_TRUE(ring.submit());
  }
  EXPECT_EQ(accepted, 8U);  // twice its entries
  for (uint32_t i = 0; i < accepted; ++i) EXPECT_EQ(wait_one(ring).result, 1);
  EXPECT_TRUE(ring.readv(file, &in, 1, 0, 0));
}

TEST(IoUringTest, GoesToAnotherThread) {
  MAKE_RING(ring, 4);
  Fd file = memory_file(4096);
  std::thread([ring = std::move(ring), &file]() mutable {
    std::array<char, 1> byte = {};
    iovec in = buffer_of(byte);
    ASSERT_TRUE(ring.readv(file, &in, 1, 0, 3));
    ASSERT_TRUE(ring.submit());
    EXPECT_EQ(wait_one(ring).result, 1);
  }).join();
}

TEST(IoUringTest, AnErrorNamesTheLimit) {
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = {.rlim_cur = 0, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  auto ring = IoUring::create(4);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_FALSE(ring);
  if (ring.error().code() != std::errc::too_many_files_open) GTEST_SKIP() << ring.error().what();
  EXPECT_THAT(ring.error().what(), HasSubstr("RLIMIT_NOFILE"));
}

/// A ring whose entries the test fills itself.
class RestrictedRingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = set_up_restricted_ring(ring_, 8);
    ready_ = made.has_value();
    if (!ready_) GTEST_SKIP() << made.error().what();
  }
  void TearDown() override {
    if (ready_) io_uring_queue_exit(&ring_);
  }
  int result_of(void (*prepare)(io_uring_sqe*)) {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    prepare(entry);
    EXPECT_EQ(io_uring_submit_and_wait(&ring_, 1), 1);
    io_uring_cqe* done = nullptr;
    EXPECT_EQ(io_uring_wait_cqe(&ring_, &done), 0);
    int result = done->res;
    io_uring_cqe_seen(&ring_, done);
    return result;
  }

  io_uring ring_ = {};
  bool ready_ = false;
};

TEST_F(RestrictedRingTest, TheKernelRefusesOtherOperations) {
  EXPECT_EQ(result_of([](io_uring_sqe* e) { io_uring_prep_openat(e, AT_FDCWD, "/", O_RDONLY, 0); }),
            -EACCES);
  EXPECT_EQ(result_of([](io_uring_sqe* e) { io_uring_prep_send(e, 0, "", 0, 0); }), -EACCES);
  EXPECT_EQ(result_of([](io_uring_sqe* e) { io_uring_prep_socket(e, AF_UNIX, SOCK_STREAM, 0, 0); }),
            -EACCES);
  EXPECT_EQ(result_of([](io_uring_sqe* e) { io_uring_prep_close(e, 0); }), -EACCES);
  EXPECT_EQ(result_of([](io_uring_sqe* e) { io_uring_prep_read(e, 0, nullptr, 0, 0); }), -EACCES);
  EXPECT_EQ(result_of([](io_uring_sqe* e) { io_uring_prep_nop(e); }), -EACCES);
}

TEST_F(RestrictedRingTest, TheKernelRefusesFlags) {
  EXPECT_EQ(result_of([](io_uring_sqe* e) {
              io_uring_prep_fsync(e, 0, 0);
              e->flags = IOSQE_ASYNC;
            }),
            -EACCES);
}

TEST_F(RestrictedRingTest, TheKernelTakesTimeouts) {
  EXPECT_EQ(result_of([](io_uring_sqe* e) {
              static __kernel_timespec soon = {.tv_sec = 0, .tv_nsec = 1};
              io_uring_prep_timeout(e, &soon, 0, 0);
            }),
            -ETIME);
}

TEST_F(RestrictedRingTest, TheKernelRefusesToRegisterMore) {
  iovec nothing = {};
  EXPECT_EQ(io_uring_register_buffers(&ring_, &nothing, 1), -EACCES);
  EXPECT_EQ(io_uring_register_files_sparse(&ring_, 1), -EACCES);
}

/// Whether nobody has the other end of the pipe any more, at the latest after that time.
bool has_ended(const Fd& pipe, int timeout_ms) {
  pollfd waited{.fd = pipe.get(), .events = 0, .revents = 0};
  return ::poll(&waited, 1, timeout_ms) == 1 && (waited.revents & POLLHUP) != 0;
}

TEST(IoUringTest, HoldsADescriptorAsLongAsItLives) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Fd hear(ends[0]);
  Fd held(ends[1]);
  {
    auto first = IoUring::create(4, held);
    if (!first) GTEST_SKIP() << first.error().what();
    {
      auto second = IoUring::create(4, held);
      ASSERT_TRUE(second);
      held = {};
    }
    EXPECT_FALSE(has_ended(hear, 50)) << "one of two rings is there";
    Fd file = memory_file(0);
    std::array<char, 3> bytes = {'a', 'b', 'c'};
    iovec out = buffer_of(bytes);
    ASSERT_TRUE(first->writev(file, &out, 1, 0, 1));
    ASSERT_TRUE(first->submit());
    EXPECT_EQ(wait_one(*first).result, 3) << "it works as one that holds nothing";
  }
  EXPECT_TRUE(has_ended(hear, 10'000));
}

/// A hole of such a size is punched for a while, whoever is killed meanwhile.
TEST(IoUringTest, AnOperationOfAKilledProcessHasEndedWhenItsDescriptorIsGone) {
  constexpr uint64_t kBytes = uint64_t{128} << 20;
  for (int round = 0; round < 5; ++round) {
    Fd file = memory_file(kBytes);
    ASSERT_EQ(::fallocate(file.get(), 0, 0, kBytes), 0);
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    Fd hear(ends[0]);
    Fd held(ends[1]);
    Fd ready = std::move(*make_eventfd());
    const pid_t child = ::fork();
    if (child == 0) {
      auto ring = IoUring::create(4, held);
      held = {};
      if (ring) {
        (void)ring->fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kBytes, 1);
        (void)ring->submit();
      }
      signal_eventfd(ready);
      ::pause();
      ::_exit(0);
    }
    ASSERT_GT(child, 0);
    held = {};
    pollfd waited{.fd = ready.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&waited, 1, 10'000), 1);
    ::usleep(static_cast<useconds_t>(round) * 2'000);
    ::kill(child, SIGKILL);
    EXPECT_TRUE(has_ended(hear, 10'000));
    struct stat then{};
    ::fstat(file.get(), &then);
    ::usleep(50'000);
    struct stat later{};
    ::fstat(file.get(), &later);
    EXPECT_EQ(then.st_blocks, later.st_blocks) << "something was still at work";
    ::waitpid(child, nullptr, 0);
  }
}

}  // namespace
}  // namespace crosvm
