// Where the system refuses io_uring, for lack of locked memory or by a filter.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <functional>
#include <thread>

#include "devices/block/block_device.h"
#include "devices/block/block_test_disk.h"

namespace crosvm {
namespace {

using namespace block_test;
using testing::HasSubstr;

/// Runs `work` on a thread where, as on those it starts, io_uring_setup fails with `error`. Says
/// false where that cannot be arranged.
bool run_without_io_uring(unsigned error, const std::function<void()>& work) {
  bool arranged = false;
  std::thread([&] {
    std::array<sock_filter, 4> instructions = {{
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    }};
    sock_fprog program{.len = instructions.size(), .filter = instructions.data()};
    arranged = ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
               ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
    if (arranged) work();
  }).join();
  return arranged;
}

size_t count(std::string_view text, std::string_view part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(BlockExecutorTest, AutoFallsBackToThreadsAndSaysSoOnce) {
  TestDisk disk(1 << 20);
  for (const char* more : {"", ",multiple-workers", ",async-executor=auto"}) {
    std::string said;
    const bool arranged = run_without_io_uring(ENOMEM, [&] {
      testing::internal::CaptureStderr();
      Rig rig = make_rig<BlockFactory>(disk.text(more));
      const std::string text(4096, 't');
      EXPECT_EQ(write_at(rig.driver(0), 8, text), VIRTIO_BLK_S_OK);
      RigUsed used = read_at(rig.driver(3), 8, text.size());
      EXPECT_EQ(as_text(used.bytes).substr(0, text.size()), text);
      said = testing::internal::GetCapturedStderr();
    });
    if (!arranged) GTEST_SKIP() << "no seccomp filter: " << std::strerror(errno);
    EXPECT_EQ(count(said, "no io_uring"), 1U) << said;
    EXPECT_THAT(said, HasSubstr("raise RLIMIT_MEMLOCK (ulimit -l)"));
  }
}

TEST(BlockExecutorTest, WhatIsAskedForByNameIsAnErrorThatSaysWhatHelps) {
  TestDisk disk(1 << 20);
  auto error_of = [&](unsigned error) {
    std::string said = "no seccomp filter";
    run_without_io_uring(error, [&] {
      auto opened = open_rig<BlockFactory>(disk.text(",async-executor=uring"));
      said = opened ? "no error" : opened.error().what();
    });
    return said;
  };
  const std::string said = error_of(ENOMEM);
  if (said == "no seccomp filter") GTEST_SKIP() << said;
  EXPECT_THAT(said, HasSubstr("async-executor=uring: creating an io_uring: Cannot allocate memory: "
                              "raise RLIMIT_MEMLOCK (ulimit -l)"));
  EXPECT_THAT(error_of(EPERM), HasSubstr("use the executor epoll"));
  EXPECT_THAT(error_of(ENOSYS), HasSubstr("this kernel has no io_uring"));
}

}  // namespace
}  // namespace crosvm
