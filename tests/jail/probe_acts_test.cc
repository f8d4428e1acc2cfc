// Every forbidden act, under the real policy of every device, in a real jail.

#include "probe_acts.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "base/format.h"
#include "base/restricted_ring.h"
#include "jail/enter_jail.h"
#include "jail/jail_namespaces.h"
#include "jail/seccomp_filter.h"

namespace crosvm {
namespace {

using test::ProbeAct;
using test::ProbeTargets;

/// What the policy's supervisor answers here, where a real one ends the process.
constexpr int kDenied = EPERM;

// In the child --------------------------------------------------------------------------------

/// Sends `fd` over a connected socket.
bool pass(int socket, int fd) {
  char byte = 0;
  iovec text = {.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  return ::sendmsg(socket, &message, 0) == 1;
}

/// A process's socket to the test, and its ring.
constexpr int kSocket = 3;
constexpr int kRing = 4;

/// Makes its ring, enters the jail, installs the filter, hands over its listener, then tries each
/// act and tells what came of it. Returns why it could not.
std::string misbehave(const std::string& policy) {
  io_uring ring = {};
  ProbeTargets targets{.outside = 1, .ring = nullptr, .own_descriptors = {0, 1, 2, kSocket}};
  if (set_up_restricted_ring(ring, 8)) {
    targets.ring = &ring;
    targets.own_descriptors.push_back(ring.ring_fd);
  }
  auto entered = enter_jail({.name = "probe"});
  if (!entered) return entered.error().what();
  auto program = find_seccomp_policy(policy, {.action = SeccompDefault::kNotify});
  if (!program) return program.error().what();
  auto listener = install_seccomp(*program, {.all_threads = false, .listener = true});
  if (!listener) return listener.error().what();
  if (!pass(kSocket, listener->get())) return "the listener cannot be sent";
  *listener = Fd();
  for (const ProbeAct& act : test::probe_acts()) {
    const long result = act.attempt(targets);
    (void)!::write(kSocket, &result, sizeof(result));
  }
  return "";
}

// In the test ---------------------------------------------------------------------------------

/// What came of one act.
struct Outcome {
  long result = 0;
  std::set<std::string> denied;  // calls, by name
};

class Supervisor {
 public:
  explicit Supervisor(Fd socket) : socket_(std::move(socket)) {}

  /// Answers denied calls until the child has gone.
  std::vector<Outcome> watch() {
    receive_listener();
    while (true) {
      pollfd both[] = {{.fd = listener_.get(), .events = POLLIN, .revents = 0},
                       {.fd = socket_.get(), .events = POLLIN, .revents = 0}};
      if (::poll(both, 2, 10'000) <= 0) {
        ADD_FAILURE() << "the probe hangs";
        break;
      }
      // An act tells its result before the next one makes a call.
      if ((both[1].revents & (POLLIN | POLLHUP)) != 0 && !take_results()) break;
      if ((both[0].revents & POLLIN) != 0) deny_one();
    }
    return std::move(outcomes_);
  }

 private:
  void receive_listener() {
    char byte = 0;
    iovec text = {.iov_base = &byte, .iov_len = 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &text;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    if (::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC) != 1) return;
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    int fd = -1;
    if (header) std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    listener_ = Fd(fd);
  }

  void deny_one() {
    seccomp_notif heard = {};
    if (::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_RECV, &heard) != 0) return;
    char* name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, heard.data.nr);
    now_.denied.insert(name ? name : std::to_string(heard.data.nr));
    std::free(name);
    seccomp_notif_resp answer = {.id = heard.id, .val = 0, .error = -kDenied, .flags = 0};
    (void)::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_SEND, &answer);
  }

  /// All that have come; whether the child is still there.
  bool take_results() {
    while (true) {
      const ssize_t got = ::recv(socket_.get(), &now_.result, sizeof(now_.result), MSG_DONTWAIT);
      if (got != sizeof(now_.result)) return got < 0 && errno == EAGAIN;
      outcomes_.push_back(std::exchange(now_, {}));
    }
  }

  Fd socket_;
  Fd listener_;
  Outcome now_;
  std::vector<Outcome> outcomes_;
};

std::vector<Outcome> probe(const std::string& policy) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return {};
  Fd ours(ends[0]);
  Fd theirs(ends[1]);
  auto process = clone_into_namespaces([&] {
    // Where an exec would leave it: its socket and nothing else.
    if (::dup2(theirs.get(), kRing) != kRing || ::dup2(kRing, kSocket) != kSocket) ::_exit(2);
    ::close_range(kRing, ~0U, 0);
    const std::string error = misbehave(policy);
    if (!error.empty()) (void)!::write(STDERR_FILENO, error.data(), error.size());
    ::_exit(error.empty() ? 0 : 1);
  });
  if (!process) {
    ADD_FAILURE() << process.error().what();
    return {};
  }
  theirs = Fd();
  auto outcomes = Supervisor(std::move(ours)).watch();
  siginfo_t ended = {};
  EXPECT_EQ(::waitid(static_cast<idtype_t>(3 /* P_PIDFD */),
                     static_cast<id_t>(process->pidfd.get()), &ended, WEXITED),
            0);
  EXPECT_EQ(ended.si_code, CLD_EXITED);
  EXPECT_EQ(ended.si_status, 0);
  return outcomes;
}

class ProbeActsTest : public testing::TestWithParam<const char*> {};

TEST_P(ProbeActsTest, EveryForbiddenActIsDeniedByName) {
#ifdef CROSVM_SANITIZE
  GTEST_SKIP() << "policies of a sanitizer build allow what its run time does";
#endif
  const auto outcomes = probe(GetParam());
  const auto acts = test::probe_acts();
  ASSERT_EQ(outcomes.size(), acts.size());
  for (size_t i = 0; i < acts.size(); ++i) {
    EXPECT_TRUE(test::is_harmless_result(acts[i], GetParam(), outcomes[i].result))
        << acts[i].name << " gave " << outcomes[i].result;
    if (!test::is_denied_by_name(acts[i], GetParam())) continue;
    EXPECT_EQ(outcomes[i].result, -kDenied) << acts[i].name;
    EXPECT_TRUE(outcomes[i].denied.contains(std::string(acts[i].call)))
        << acts[i].name << " by " << acts[i].call;
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, ProbeActsTest,
                         testing::Values("block_device", "serial_device", "rng_device",
                                         "block_device_vhost_user", "serial_device_vhost_user",
                                         "rng_device_vhost_user", "vsock_device",
                                         "vsock_device_vhost_user", "net_device",
                                         "net_device_vhost_user", "net_user_device"),
                         [](const auto& info) { return std::string(info.param); });

/// Without a filter some acts succeed, or the test above would prove nothing.
TEST(ProbeActsAloneTest, ManyActsSucceedOutsideAJail) {
  const ProbeTargets targets{.outside = ::getpid(), .ring = nullptr, .own_descriptors = {}};
  const std::set<std::string_view> harmless = {"open a file",
                                               "open the root",
                                               "open with openat2",
                                               "look at a path",
                                               "ask for access",
                                               "make a local socket",
                                               "make an internet socket",
                                               "signal a process",
                                               "get hold of a process",
                                               "find another device's descriptor",
                                               "map executable memory",
                                               "make memory executable",
                                               "make a process",
                                               "make a process with clone3"};
  size_t tried = 0;
  for (const ProbeAct& act : test::probe_acts()) {
    if (!harmless.contains(act.name)) continue;
    ++tried;
    EXPECT_GE(act.attempt(targets), 0) << act.name;
  }
  EXPECT_EQ(tried, harmless.size());
  while (::waitpid(-1, nullptr, 0) > 0) continue;
}

}  // namespace
}  // namespace crosvm
