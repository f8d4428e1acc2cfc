#include "base/fd.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <future>
#include <thread>
#include <vector>

namespace crosvm {
namespace {

using testing::HasSubstr;

bool is_open(int number) { return ::fcntl(number, F_GETFD) >= 0; }
bool is_close_on_exec(const Fd& fd) { return (::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0; }

Fd memory_file(std::string_view text) {
  Fd fd(::memfd_create("fd_test", MFD_CLOEXEC));
  EXPECT_TRUE(write_full(fd, std::as_bytes(std::span(text)), "file"));
  return fd;
}

std::pair<Fd, Fd> make_pipe(int flags = 0) {
  std::array<int, 2> ends;
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC | flags), 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

TEST(Fd, ClosesWhatItOwnsOnce) {
  int number = -1;
  {
    Fd fd = memory_file("");
    number = fd.get();
    Fd other = std::move(fd);
    EXPECT_FALSE(fd);  // NOLINT(bugprone-use-after-move): that it owns nothing now
    EXPECT_EQ(other.get(), number);
    EXPECT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(Fd, AssignmentClosesTheOldOneAtOnce) {
  Fd fd = memory_file("");
  int old = fd.get();
  fd = memory_file("");
  EXPECT_FALSE(is_open(old));
  fd = std::move(*&fd);  // to itself
  EXPECT_TRUE(fd);
}

TEST(Fd, ReleaseGivesItUp) {
  Fd fd = memory_file("");
  Fd again(fd.release());
  EXPECT_FALSE(fd);
  EXPECT_TRUE(is_open(again.get()));
}

TEST(Fd, DuplicateIsTheSameFileAndCloseOnExec) {
  Fd fd = memory_file("abc");
  auto copy = fd.duplicate();
  ASSERT_TRUE(copy);
  EXPECT_EQ(file_size(*copy, "copy").value(), 3u);
  EXPECT_TRUE(is_close_on_exec(*copy));
  EXPECT_EQ(Fd().duplicate().error().code(), std::errc::bad_file_descriptor);
}

TEST(Fd, OpenPathNamesTheFile) {
  auto fd = open_path("/proc/self/exe", O_RDONLY);
  ASSERT_TRUE(fd);
  EXPECT_TRUE(is_close_on_exec(*fd));
  EXPECT_EQ(open_path("/no/such/file", O_RDONLY).error().what(),
            "opening /no/such/file: No such file or directory");
}

TEST(Fd, OpenPathTakesInheritedDescriptorsOnly) {
  Fd fd = memory_file("abc");
  std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  EXPECT_EQ(open_path(path, O_RDONLY).error().code(), std::errc::bad_file_descriptor);  // ours
  ASSERT_EQ(::fcntl(fd.get(), F_SETFD, 0), 0);
  auto copy = open_path(path, O_RDONLY);
  ASSERT_TRUE(copy) << copy.error().what();
  EXPECT_NE(copy->get(), fd.get());
  EXPECT_TRUE(is_close_on_exec(*copy));
  EXPECT_EQ(open_path("/proc/self/fd/9999", 0).error().code(), std::errc::bad_file_descriptor);
  for (const char* bad : {"", "x", "-1", "1x", "99999999999"}) {
    EXPECT_FALSE(open_path(std::string("/proc/self/fd/") + bad, 0)) << bad;
  }
}

TEST(Fd, ReadFullStopsAtTheEnd) {
  Fd fd = memory_file("abcdef");
  std::array<char, 4> text;
  auto bytes = std::as_writable_bytes(std::span(text));
  EXPECT_EQ(read_full_at(fd, 1, bytes, "file").value(), 4u);
  EXPECT_EQ(std::string_view(text.data(), 4), "bcde");
  EXPECT_EQ(read_full_at(fd, 4, bytes, "file").value(), 2u);
  EXPECT_EQ(read_full_at(fd, 100, bytes, "file").value(), 0u);
  ASSERT_EQ(::lseek(fd.get(), 4, SEEK_SET), 4);
  EXPECT_EQ(read_full(fd, bytes, "file").value(), 2u);
}

TEST(Fd, ReadFullGathersWhatComesInPieces) {
  auto [reader, writer] = make_pipe();
  std::thread other([&writer] {
    for (char c : {'a', 'b', 'c'}) {
      EXPECT_TRUE(write_full(writer, std::as_bytes(std::span(&c, 1)), "pipe"));
    }
    writer = Fd();
  });
  std::array<char, 8> text;
  EXPECT_EQ(read_full(reader, std::as_writable_bytes(std::span(text)), "pipe").value(), 3u);
  other.join();
}

TEST(Fd, WriteFullWaitsForANonBlockingReader) {
  auto [reader, writer] = make_pipe(O_NONBLOCK);
  ASSERT_EQ(::fcntl(reader.get(), F_SETFL, 0), 0);
  std::vector<std::byte> much(1 << 20);
  std::vector<std::byte> got(much.size());
  std::thread other([&] { EXPECT_TRUE(write_full(writer, much, "pipe")); });
  EXPECT_EQ(read_full(reader, got, "pipe").value(), much.size());
  other.join();
}

TEST(Fd, ErrorsNameTheObject) {
  Fd directory = std::move(open_path("/", O_RDONLY).value());
  std::array<std::byte, 1> byte{};
  EXPECT_THAT(read_full(directory, byte, "disk").error().what(), HasSubstr("reading disk: "));
  EXPECT_THAT(write_full(directory, byte, "disk").error().what(), HasSubstr("writing disk: "));
  EXPECT_EQ(file_size(directory, "disk").error().what(), "disk is a directory, not a file");
  auto [reader, writer] = make_pipe();
  EXPECT_EQ(file_size(reader, "disk").error().what(), "disk is not a regular file");
}

TEST(Fd, OnlyMissingStandardDescriptorsAreOpened) {
  auto check = [](std::vector<int> closed) {
    struct stat before[3], after[3];
    for (int i = 0; i < 3; ++i) ::fstat(i, &before[i]);
    for (int number : closed) ::close(number);
    if (!ensure_standard_descriptors()) std::_Exit(1);
    struct stat null{};
    ::stat("/dev/null", &null);
    for (int i = 0; i < 3; ++i) {
      const bool was_closed = std::ranges::find(closed, i) != closed.end();
      const auto expected = was_closed ? null.st_rdev : before[i].st_rdev;
      if (::fstat(i, &after[i]) != 0 || after[i].st_rdev != expected) std::_Exit(2 + i);
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(check({}), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(check({1}), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(check({0, 2}), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(check({0, 1, 2}), testing::ExitedWithCode(0), "");
}

TEST(Fd, EventfdCountsSignals) {
  Fd event = std::move(make_eventfd().value());
  EXPECT_TRUE(is_close_on_exec(event));
  EXPECT_EQ(drain_eventfd(event), 0u);
  signal_eventfd(event);
  signal_eventfd(event);
  EXPECT_EQ(drain_eventfd(event), 2u);
  EXPECT_EQ(drain_eventfd(event), 0u);
  uint64_t nearly_full = UINT64_MAX - 1;
  ASSERT_EQ(::write(event.get(), &nearly_full, sizeof(nearly_full)), 8);
  signal_eventfd(event);  // full: does not block
  EXPECT_NE(drain_eventfd(event), 0u);
}

/// Its flags belong to the open file: a peer that was given it may have made it blocking.
TEST(EventfdTest, IsDrainedWithoutWaitingWhateverItsFlags) {
  const Fd event = std::move(*make_eventfd());
  ASSERT_EQ(::fcntl(event.get(), F_SETFL, 0), 0);
  auto count = std::async(std::launch::async, [&event] { return drain_eventfd(event); });
  const bool waits = count.wait_for(std::chrono::seconds(10)) == std::future_status::timeout;
  EXPECT_FALSE(waits);
  if (waits) signal_eventfd(event);
  EXPECT_EQ(count.get(), waits ? 1u : 0u);
  signal_eventfd(event);
  signal_eventfd(event);
  EXPECT_EQ(drain_eventfd(event), 2u);
}

}  // namespace
}  // namespace crosvm
