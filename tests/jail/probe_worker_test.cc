// Every forbidden act once more, by a device in a real worker: started by the spawner, in its
// namespaces, with its limits, its descriptors and its ring, beside another device.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <future>
#include <set>
#include <string>
#include <vector>

#include "base/format.h"
#include "base/io_uring.h"
#include "base/log.h"
#include "base/socket_pair.h"
#include "devices/all_devices.h"
#include "jail/jailed_services.h"
#include "jail/rig/worker_host.h"
#include "probe_acts.h"
#include "probe_device.h"

namespace crosvm::test {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

/// While it lives, standard error is a file: what this process, a spawner and workers log.
class CapturedLog {
 public:
  CapturedLog() : former_(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)) {
    std::fflush(stderr);
    CHECK(former_ && file_ && ::dup2(file_.get(), STDERR_FILENO) == STDERR_FILENO);
  }
  ~CapturedLog() {
    std::fflush(stderr);
    ::dup2(former_.get(), STDERR_FILENO);
  }
  std::string text() const {
    std::string all(static_cast<size_t>(std::filesystem::file_size(path_)), '\0');
    CHECK(::pread(file_.get(), all.data(), all.size(), 0) >= 0);
    return all;
  }

 private:
  std::string path_ = testing::TempDir() + format_text("probe-log-{}", ::getpid());
  Fd former_;
  Fd file_{::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600)};
};

/// A file for a device to serve.
class Image {
 public:
  explicit Image(std::string_view name)
      : path_(testing::TempDir() + format_text("probe-{}-{}", name, ::getpid())) {
    Fd file(::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    CHECK(file && ::ftruncate(file.get(), 1 << 20) == 0);
  }
  ~Image() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }
  uint64_t inode() const {
    struct stat status = {};
    CHECK(::stat(path_.c_str(), &status) == 0);
    return status.st_ino;
  }

 private:
  std::string path_;
};

DeviceType probe_under(std::string_view policy) {
  DeviceType type = *find_probe(ProbeFactory::kName);
  type.policy = policy;
  return type;
}

std::string name_of(size_t act) { return format_text("act{}", act); }

/// A disk and probes, each in its worker.
class ProbedVm {
 public:
  explicit ProbedVm(SandboxOptions options = {}) {
    CHECK(log::configure({.filter = "info", .use_syslog = false}));
    auto host = WorkerHost::create(std::move(options));
    CHECK(host.has_value());
    host_ = std::move(*host);
    auto disk = host_->run("disk0", *find_device("block"), "path=" + other_.path());
    CHECK(disk.has_value());
    disk_ = std::move(*disk);
    CHECK(host_->process("disk0") != 0);
  }
  ~ProbedVm() { disk_.reset(); }

  /// What came of it, as the VMM hears: "act3: its process was ended as it called …".
  std::string try_act(std::string_view policy, size_t act) {
    return run(policy, name_of(act), format_text("act={},", act));
  }
  std::string descriptors() { return run("rng_device", "probe", ""); }
  const Image& own() const { return own_; }
  const Image& other() const { return other_; }

 private:
  std::string run(std::string_view policy, const std::string& name, const std::string& what) {
    auto backend = host_->run(name, probe_under(policy),
                              format_text("{}outside={},other={},image={}", what,
                                          host_->process("disk0"), other_.inode(), own_.path()));
    return backend ? "it serves" : backend.error().what();
  }

  Image own_{"own"};
  Image other_{"other"};
  std::unique_ptr<WorkerHost> host_;
  std::unique_ptr<DeviceBackend> disk_;
};

/// What is logged of a call that is denied to the worker of an act.
std::string denial(size_t act, std::string_view call) {
  return format_text("{}: its process called {}(", name_of(act), call);
}

/// Whether the log has the denial of an act; by its call where a policy denies it.
testing::AssertionResult denied_by_name(const std::string& log, size_t act) {
  const std::string_view call = probe_acts()[act].call;
  const std::string wanted = denial(act, call);
  if (log.find(wanted) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << probe_acts()[act].name << ": the log lacks: " << wanted;
}

/// Of an act that no policy denies by name: whether its process was ended, or it gave nothing.
bool ended_or_harmless(const std::string& outcome, const ProbeAct& act, std::string_view policy) {
  constexpr std::string_view kGave = "the act gave ";
  const size_t at = outcome.find(kGave);
  if (at == std::string::npos) return outcome.find("which is denied") != std::string::npos;
  return is_harmless_result(act, policy, std::stol(outcome.substr(at + kGave.size())));
}

class ProbeWorkerTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
#ifdef CROSVM_SANITIZE
    GTEST_SKIP() << "policies of a sanitizer build allow what its run time does";
#endif
  }
};

TEST_P(ProbeWorkerTest, EveryForbiddenActIsDeniedAndLogged) {
  const bool has_rings = IoUring::create(8).has_value();
  const CapturedLog log;
  ProbedVm vm;
  for (size_t i = 0; i < probe_acts().size(); ++i) {
    const ProbeAct& act = probe_acts()[i];
    SCOPED_TRACE(act.name);
    const std::string outcome = vm.try_act(GetParam(), i);
    if (act.name.ends_with("by the ring") && has_rings) {
      EXPECT_THAT(outcome, HasSubstr(format_text("the act gave {}", -EACCES)));
      continue;
    }
    if (!is_denied_by_name(act, GetParam())) {
      EXPECT_TRUE(ended_or_harmless(outcome, act, GetParam())) << outcome;
      continue;
    }
    EXPECT_EQ(outcome, format_text("{}: its process was ended as it called {}, which is denied",
                                   name_of(i), act.call));
    EXPECT_TRUE(denied_by_name(log.text(), i));
    EXPECT_THAT(log.text(), HasSubstr(format_text("the line \"{}: 1\" in a policy", act.call)));
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, ProbeWorkerTest,
                         testing::Values("block_device", "serial_device", "rng_device",
                                         "vsock_device", "net_device", "net_user_device"),
                         [](const auto& info) { return std::string(info.param); });

class ProbeServiceTest : public ProbeWorkerTest {};

/// Processes of `crosvm devices`, which serve the front-ends of others.
TEST_P(ProbeServiceTest, EveryForbiddenActIsDeniedAndLogged) {
  const CapturedLog log;
  CHECK(log::configure({.filter = "info", .use_syslog = false}));
  const Image own("own");
  auto spawner = Spawner::start();
  auto loop = EventLoop::create();
  ASSERT_TRUE(spawner && loop);
  size_t ended = 0;
  auto services = JailedServices::create(
      **loop, std::move(*spawner), {},
      {.ended = [&ended](const std::string&, bool) { ++ended; }, .lost = [] {}});
  ASSERT_TRUE(services);
  const DeviceType type = probe_under(GetParam());
  for (size_t i = 0; i < probe_acts().size(); ++i) {
    const std::string text = format_text("act={},other=0,image={}", i, own.path());
    auto opened = type.open(text);
    auto frontend = make_socket_pair(SOCK_STREAM, "a test");
    ASSERT_TRUE(opened && frontend);
    ASSERT_TRUE((*services)->start(type, name_of(i), text, **opened, std::move(frontend->theirs)));
    while (ended <= i) ASSERT_TRUE((*loop)->run_once(std::chrono::seconds(30)));
  }
  for (size_t i = 0; i < probe_acts().size(); ++i) {
    if (!probe_acts()[i].call.empty()) {
      EXPECT_TRUE(denied_by_name(log.text(), i));
      continue;
    }
    EXPECT_THAT(log.text(),
                ContainsRegex(format_text("{}: (the act gave -|its process called )", name_of(i))))
        << probe_acts()[i].name;
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, ProbeServiceTest,
                         testing::Values("block_device", "serial_device", "rng_device",
                                         "vsock_device", "net_device"),
                         [](const auto& info) { return std::string(info.param); });

/// Its sockets, what it serves, its ring and its loop; nothing of the disk beside it.
TEST(ProbeWorkerDescriptorsTest, AWorkerHasItsOwnAndNoOther) {
#ifdef CROSVM_SANITIZE
  GTEST_SKIP() << "policies of a sanitizer build allow what its run time does";
#endif
  // With a file as standard error the log has no descriptor of its own.
  const CapturedLog log;
  ProbedVm vm;
  const std::string told = vm.descriptors();
  EXPECT_THAT(told, HasSubstr("it has 0 character, 1 character, 2 file "));
  EXPECT_THAT(told, HasSubstr(format_text("file {}", vm.own().inode())));
  EXPECT_THAT(told, Not(HasSubstr(format_text("file {}", vm.other().inode()))));
  const auto count = [&told](std::string_view what) {
    size_t found = 0;
    for (size_t at = told.find(what); at != told.npos; at = told.find(what, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("socket"), 2u) << told;     // orders, vhost-user
  EXPECT_EQ(count("anonymous"), 4u) << told;  // ring, epoll, timers, event
  EXPECT_EQ(count("file"), 2u) << told;       // standard error, what it serves
  EXPECT_EQ(count(", ") + 1, 2u + 2 + 4 + 2) << told;
}

/// Where the policy only logs, namespaces, limits, capabilities, the root and the restrictions of
/// the ring still stand. These acts it is the policy alone that denies: what can be seen of an
/// empty root, sockets in a network without an interface, processes and memory of its own.
TEST(ProbeWorkerWithoutPolicyTest, TheRoomAloneDeniesTheOthers) {
#ifdef CROSVM_SANITIZE
  GTEST_SKIP() << "a sanitizer's run time changes what the acts find";
#endif
  const std::set<std::string_view> policy_alone = {"open the root",
                                                   "open the root as a place",
                                                   "open with openat2",
                                                   "look at a path",
                                                   "ask for access",
                                                   "change the directory",
                                                   "make an internet socket",
                                                   "make an IPv6 socket",
                                                   "make a socket of many paths",
                                                   "make a local socket",
                                                   "make a pair of sockets",
                                                   "make a netlink socket",
                                                   "make a vsock socket",
                                                   "make a crypto socket",
                                                   "make a process",
                                                   "make a process with clone3",
                                                   "make a user namespace",
                                                   "make a process in namespaces",
                                                   "map executable memory",
                                                   "make memory executable",
                                                   "make memory executable by a key",
                                                   "make a ring",
                                                   "measure performance",
                                                   "handle page faults",
                                                   "add a key",
                                                   "make shared memory",
                                                   "make a message queue",
                                                   "change the user",
                                                   "become dumpable",
                                                   "raise a limit"};
  const CapturedLog log;
  ProbedVm vm({.seccomp_log_failures = true});
  size_t succeeded = 0;
  for (size_t i = 0; i < probe_acts().size(); ++i) {
    const std::string_view name = probe_acts()[i].name;
    const std::string outcome = vm.try_act("rng_device", i);
    ASSERT_THAT(outcome, HasSubstr("the act gave ")) << name;
    if (outcome.find("gave -") != std::string::npos) continue;
    ++succeeded;
    EXPECT_TRUE(policy_alone.contains(name)) << name << ": " << outcome;
  }
  EXPECT_GT(succeeded, 10u) << "nothing is proven where all fails";
}

/// The files that an image names are asked for before the guest runs: nobody may wait for a process
/// that takes no answer, neither the VMM nor what serves other front-ends.
class ProbeFloodTest : public testing::Test {
 protected:
  static constexpr std::chrono::seconds kPatience{30};
  Image own_{"own"};
  std::string text_ = format_text("flood,image={}", own_.path());
  DeviceType type_ = probe_under("rng_device");
};

TEST_F(ProbeFloodTest, AVmDoesNotStartWithIt) {
  auto host = WorkerHost::create();
  ASSERT_TRUE(host);
  auto started = std::async(std::launch::async, [&]() -> std::string {
    auto backend = (*host)->run("flood0", type_, text_);
    return backend ? "it serves" : backend.error().what();
  });
  EXPECT_EQ(started.wait_for(kPatience), std::future_status::ready);
  for (const pid_t pid : (*host)->processes()) ::kill(pid, SIGKILL);  // lets go of who waits
  EXPECT_THAT(started.get(), HasSubstr("flood0: "));
}

TEST_F(ProbeFloodTest, OtherFrontendsAreServed) {
  auto spawner = Spawner::start();
  auto loop = EventLoop::create();
  ASSERT_TRUE(spawner && loop);
  const pid_t spawner_pid = (*spawner)->pid();
  std::atomic<bool> ended = false;
  auto services = JailedServices::create(
      **loop, std::move(*spawner), {},
      {.ended = [&ended](const std::string&, bool) { ended = true; }, .lost = [] {}});
  ASSERT_TRUE(services);
  auto opened = type_.open(text_);
  auto frontend = make_socket_pair(SOCK_STREAM, "a test");
  ASSERT_TRUE(opened && frontend);
  ASSERT_TRUE((*services)->start(type_, "flood0", text_, **opened, std::move(frontend->theirs)));
  auto over = std::async(std::launch::async, [&] {
    while (!ended && (*loop)->run_once(std::chrono::milliseconds(100))) {
    }
  });
  EXPECT_EQ(over.wait_for(kPatience), std::future_status::ready);
  if (!ended) ::kill(spawner_pid, SIGKILL);  // and with it the process: lets go of who waits
}

}  // namespace
}  // namespace crosvm::test
