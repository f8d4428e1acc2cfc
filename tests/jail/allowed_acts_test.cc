// What devices do all day is allowed by their policies, and by the room that they do it in.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/event_loop.h"
#include "base/format.h"
#include "base/io_uring.h"
#include "base/log.h"
#include "jail/enter_jail.h"
#include "jail/jail_namespaces.h"
#include "jail/seccomp_filter.h"

namespace crosvm {
namespace {

/// How a process ends that does `act` in a jail, under `policy`, which kills it for what is denied.
std::string end_of(const std::string& policy, const std::function<bool()>& act) {
  auto process = clone_into_namespaces([&] {
    log::open_sinks();
    auto entered = enter_jail({.name = "allowed"});
    auto program = find_seccomp_policy(policy, {});
    if (!entered || !program || !install_seccomp(*program, {})) ::_exit(2);
    ::_exit(act() ? 0 : 1);
  });
  if (!process) return process.error().what();
  siginfo_t ended = {};
  (void)::waitid(static_cast<idtype_t>(3 /* P_PIDFD */), static_cast<id_t>(process->pidfd.get()),
                 &ended, WEXITED);
  return format_text("{} {}", ended.si_code == CLD_EXITED ? "status" : "signal", ended.si_status);
}

constexpr char kDone[] = "status 0";

Fd make_file() {
  std::string path = testing::TempDir() + "allowed-XXXXXX";
  Fd file(::mkostemp(path.data(), O_CLOEXEC));
  ::unlink(path.c_str());
  return file;
}

class AllowedActsTest : public testing::TestWithParam<const char*> {};

/// A worker makes its loop before it is confined.
TEST_P(AllowedActsTest, AnEventLoopWithTimersAndPosts) {
  auto loop = EventLoop::create();
  auto event = make_eventfd();
  ASSERT_TRUE(loop && event);
  EXPECT_EQ(end_of(GetParam(),
                   [&] {
                     bool seen = false;
                     auto watch = (*loop)->watch(*event, EPOLLIN, [&](uint32_t) {
                       seen = drain_eventfd(*event) == 1;
                       (*loop)->after(std::chrono::milliseconds(1), [&] { (*loop)->stop(); });
                     });
                     (*loop)->post([&] { signal_eventfd(*event); });
                     return watch && (*loop)->run() && seen;
                   }),
            kDone);
}

TEST_P(AllowedActsTest, TheLogIsWritten) {
  ASSERT_TRUE(log::configure({.filter = "info", .use_syslog = false}));
  EXPECT_EQ(end_of(GetParam(),
                   [] {
                     log::warn("a line that a test of {} writes", "jails");
                     return true;
                   }),
            kDone);
}

TEST_P(AllowedActsTest, MemoryIsTakenAndGivenBack) {
  EXPECT_EQ(end_of(GetParam(),
                   [] {
                     std::vector<std::string> kept;
                     for (size_t size = 1; size < (size_t{32} << 20); size *= 2) {
                       kept.emplace_back(size, 'x');
                       kept.back().resize(size * 3);
                     }
                     return true;
                   }),
            kDone);
}

INSTANTIATE_TEST_SUITE_P(Policies, AllowedActsTest,
                         testing::Values("block_device", "serial_device", "rng_device",
                                         "vsock_device", "net_device", "net_user_device"),
                         [](const auto& info) { return std::string(info.param); });

TEST(AllowedActsOfBlockTest, ThreadsThatUseMemoryAndTheImage) {
  Fd image = make_file();
  ASSERT_TRUE(image);
  auto work = [&image] {
    for (int i = 0; i < 50; ++i) {
      std::string buffer(size_t{1} << (i % 20), 'x');
      iovec vector = {.iov_base = buffer.data(), .iov_len = buffer.size()};
      if (::pwritev2(image.get(), &vector, 1, 0, 0) < 0) return;
      if (::preadv2(image.get(), &vector, 1, 0, RWF_NOWAIT) < 0 && errno != EAGAIN) return;
    }
    (void)::fdatasync(image.get());
    (void)::fallocate(image.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
  };
  EXPECT_EQ(end_of("block_device",
                   [&] {
                     std::vector<std::thread> threads;
                     for (int i = 0; i < 80; ++i) threads.emplace_back(work);
                     for (std::thread& each : threads) each.join();
                     return true;
                   }),
            kDone);
}

TEST(AllowedActsOfBlockTest, ARingThatWasMadeBefore) {
  auto ring = IoUring::create(8);
  if (!ring) GTEST_SKIP() << ring.error().what();
  Fd image = make_file();
  EXPECT_EQ(end_of("block_device",
                   [&] {
                     char byte = 'x';
                     iovec vector = {.iov_base = &byte, .iov_len = 1};
                     if (!ring->writev(image, &vector, 1, 0, 7) || !ring->submit()) return false;
                     IoUring::Completion completion;
                     while (!ring->reap(completion)) continue;
                     return completion.result == 1 && completion.token == 7;
                   }),
            kDone);
}

TEST(AllowedActsOfRngTest, RandomBytes) {
  EXPECT_EQ(end_of("rng_device",
                   [] {
                     char bytes[64];
                     return ::getrandom(bytes, sizeof(bytes), 0) == sizeof(bytes);
                   }),
            kDone);
}

/// Connections and datagrams of both families, and pings where the host lets who it is ping.
TEST(AllowedActsOfUserNetTest, SocketsOfTheInternet) {
  EXPECT_EQ(
      end_of("net_user_device",
             [] {
               for (const int family : {AF_INET, AF_INET6}) {
                 for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
                   const Fd socket(::socket(family, type | SOCK_CLOEXEC, 0));
                   sockaddr_in6 any = {};
                   any.sin6_family = static_cast<sa_family_t>(family);
                   if (!socket ||
                       ::bind(socket.get(), reinterpret_cast<sockaddr*>(&any), sizeof(any)) != 0) {
                     return false;
                   }
                 }
                 const int ping = family == AF_INET ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
                 const Fd pings(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, ping));
               }
               return true;
             }),
      kDone);
}

/// The rng has neither: the policies are each device's own.
TEST(AllowedActsOfRngTest, NeitherThreadsNorFiles) {
#ifdef CROSVM_SANITIZE
  GTEST_SKIP() << "policies of a sanitizer build allow what its run time does";
#endif
  EXPECT_EQ(end_of("rng_device", [] { return ::fdatasync(STDERR_FILENO) == 0; }),
            format_text("signal {}", SIGSYS));
  EXPECT_EQ(end_of("rng_device", [] { return ::fork() >= 0; }), format_text("signal {}", SIGSYS));
}

}  // namespace
}  // namespace crosvm
