// Signals that end the process while it makes its socket files: it is stopped as soon as one is
// there, and asked twice, the second time for good.

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "sandboxed_vm.h"

namespace crosvm::test {
namespace {

using testing::Contains;
using testing::Not;

/// crosvm, traced by this thread: its first one.
class TracedProcess {
 public:
  explicit TracedProcess(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), crosvm_binary());
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    (void)wait();  // for its execve
  }
  ~TracedProcess() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    (void)wait();
  }
  TracedProcess(const TracedProcess&) = delete;
  TracedProcess& operator=(const TracedProcess&) = delete;

  /// Lets it run until it stops before or behind a system call with `there`; false at its end.
  bool run_until(const std::function<bool()>& there) {
    while (!ended()) {
      if (there()) return true;
      ::ptrace(PTRACE_SYSCALL, pid_, nullptr, pass_on());
      (void)wait();
    }
    return false;
  }
  /// Lets it run for so many stops.
  void step(int stops) {
    run_until([&stops] { return stops-- == 0; });
  }
  void signal(int number) const { ::kill(pid_, number); }
  /// Lets it go, and waits for its end: as of waitpid.
  int run_to_end() {
    ::ptrace(PTRACE_DETACH, pid_, nullptr, pass_on());
    while (!ended()) (void)wait();
    pid_ = -1;
    return status_;
  }

 private:
  bool ended() const { return WIFEXITED(status_) || WIFSIGNALED(status_); }
  bool wait() { return ::waitpid(pid_, &status_, 0) == pid_; }
  /// The signal that it has stopped for.
  long pass_on() const {
    const int number = WSTOPSIG(status_);
    return number == SIGTRAP ? 0 : number;
  }

  pid_t pid_ = -1;
  int status_ = 0;
};

class NativeStartSignalTest : public NativeWorkerTest {
 protected:
  void expect_no_socket_stays(const std::vector<std::string>& arguments, const std::string& name) {
    const std::string path = scratch_.path() + "/" + name;
    TracedProcess process(arguments);
    ASSERT_TRUE(process.run_until([&] { return std::filesystem::exists(path); }));
    process.signal(SIGTERM);
    process.step(2);  // it may take that one
    ::usleep(1'100'000);
    process.signal(SIGTERM);
    process.run_to_end();
    for (int tries = 0; tries < 1000 && std::filesystem::exists(path); ++tries) ::usleep(10'000);
    EXPECT_THAT(scratch_.entries(), Not(Contains(name)));
  }
};

TEST_F(NativeStartSignalTest, TheControlSocketGoes) {
  expect_no_socket_stays(arguments(), "vm.sock");
}

TEST_F(NativeStartSignalTest, TheSocketsOfASocketDeviceGo) {
  expect_no_socket_stays(
      arguments({"--vsock", "cid=3,backend=user,listen=[22:" + scratch_.path() + "/ssh]"}), "ssh");
}

TEST_F(NativeStartSignalTest, TheSocketForAFrontendGoes) {
  expect_no_socket_stays({"--no-syslog", "devices", "--block",
                          "vhost=" + scratch_.path() + "/frontend," + scratch_.path() + "/disk"},
                         "frontend");
}

}  // namespace
}  // namespace crosvm::test
