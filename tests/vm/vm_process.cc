#include "vm_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace crosvm::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kSlice{100};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) {
    ADD_FAILURE() << "$" << name << " is not set; run these tests by ./dev vm";
    return "";
  }
  return value;
}

struct Pipe {
  Fd read_end;
  Fd write_end;
};

Pipe make_pipe() {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) ADD_FAILURE() << "pipe2 failed";
  return {Fd(ends[0]), Fd(ends[1])};
}

/// Takes what is there; closes `from` at its end.
void take(Fd& from, std::string& to) {
  char buffer[4096];
  ssize_t got = ::read(from.get(), buffer, sizeof(buffer));
  if (got > 0) {
    to.append(buffer, static_cast<size_t>(got));
  } else {
    from = Fd();
  }
}

/// As fork(), with the child in a session that has `terminal` as its controlling terminal. `leader`
/// is the process that holds the session, as a shell does: if the child were the leader itself, its
/// end would hang up the terminal, and reset the modes that it left there.
pid_t fork_in_session(int terminal, pid_t& leader) {
  Pipe pids = make_pipe();
  leader = ::fork();
  if (leader == 0) {
    ::setsid();
    ::ioctl(terminal, TIOCSCTTY, 0);
    const auto sibling =
        static_cast<pid_t>(::syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0));
    if (sibling == 0) return 0;
    const auto told = ::write(pids.write_end.get(), &sibling, sizeof(sibling));
    if (sibling < 0 || told != sizeof(sibling)) ::_exit(1);
    for (int key : {SIGINT, SIGQUIT, SIGTSTP}) ::signal(key, SIG_IGN);
    ::close_range(0, ~0U, 0);  // our ends of the pipes and the terminal are not ours to keep open
    while (true) ::pause();    // until the terminal hangs up
  }
  pids.write_end = Fd();
  pid_t child = -1;
  if (::read(pids.read_end.get(), &child, sizeof(child)) != sizeof(child)) {
    ADD_FAILURE() << "no process in a session of its own";
  }
  return child;
}

}  // namespace

VmProcess::VmProcess(const std::vector<std::string>& arguments, Input input) {
  std::string program = crosvm_binary();
  std::vector<char*> argv = {program.data()};
  std::vector<std::string> copies = arguments;
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);

  Pipe errors = make_pipe();
  int child_in = -1;
  int child_out = -1;
  Pipe in;
  Pipe out;
  if (input == Input::kTerminal) {
    int ours = -1;
    int theirs = -1;
    if (::openpty(&ours, &theirs, nullptr, nullptr, nullptr) != 0)
      ADD_FAILURE() << "openpty failed";
    to_child_ = Fd(ours);
    from_child_ = Fd(::fcntl(ours, F_DUPFD_CLOEXEC, 0));
    ::fcntl(ours, F_SETFD, FD_CLOEXEC);
    terminal_end_ = Fd(theirs);
    ::fcntl(theirs, F_SETFD, FD_CLOEXEC);
    child_in = child_out = theirs;
  } else {
    in = make_pipe();
    out = make_pipe();
    to_child_ = std::move(in.write_end);
    from_child_ = std::move(out.read_end);
    child_in = in.read_end.get();
    child_out = out.write_end.get();
  }
  pid_ = input == Input::kTerminal ? fork_in_session(child_in, session_leader_) : ::fork();
  if (pid_ == 0) {
    ::dup2(child_in, 0);
    ::dup2(child_out, 1);
    ::dup2(errors.write_end.get(), 2);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  errors_from_child_ = std::move(errors.read_end);
}

std::string VmProcess::last_words() const {
  constexpr size_t kShown = 2000;
  size_t begin = std::string::npos;
  for (const char* sign :
       {"BUG:", "Oops", "PANIC:", "<#DF>", "general protection", "Kernel panic"}) {
    begin = std::min(begin, output_.find(sign));
  }
  return begin == std::string::npos ? "" : output_.substr(begin, kShown);
}

VmProcess::~VmProcess() {
  if (::testing::Test::HasFailure())
    wait_exit(std::chrono::seconds(0));  // reads what it wrote last
  if (running()) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  if (session_leader_ > 0) {
    ::kill(session_leader_, SIGKILL);
    ::waitpid(session_leader_, nullptr, 0);
  }
  if (::testing::Test::HasFailure()) {
    // Read by tools/dev/run_vm_tests.sh.
    const std::string words = last_words();
    if (errors_.find("triple fault") != std::string::npos) {
      ::testing::Test::RecordProperty("guest_fault", "triple fault");
    } else if (!words.empty()) {
      ::testing::Test::RecordProperty("guest_fault", words.substr(0, words.find_first_of("\r\n")));
    }
    fprintf(stderr, "---- stdout of crosvm ----\n%s\n---- stderr ----\n%s\n----\n", output_.c_str(),
            errors_.c_str());
  }
}

bool VmProcess::running() {
  if (pid_ <= 0 || status_) return false;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return true;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return false;
}

void VmProcess::pump(milliseconds timeout) {
  pollfd wait[2] = {{from_child_ ? from_child_.get() : -1, POLLIN, 0},
                    {errors_from_child_ ? errors_from_child_.get() : -1, POLLIN, 0}};
  ::poll(wait, 2, static_cast<int>(timeout.count()));
  if (wait[0].revents != 0) take(from_child_, output_);
  if (wait[1].revents != 0) take(errors_from_child_, errors_);
}

bool VmProcess::wait_for(std::string_view text, std::chrono::seconds timeout) {
  auto deadline = Clock::now() + timeout;
  while (output_.find(text) == std::string::npos) {
    if (Clock::now() > deadline) return false;
    bool alive = running();
    pump(kSlice);
    if (!alive && output_.find(text) == std::string::npos) {
      pump(kSlice);
      return output_.find(text) != std::string::npos;
    }
  }
  return true;
}

void VmProcess::discard_output() {
  // Bounded: a child that never stops writing is not waited for.
  for (int i = 0; i < 1000 && has_output(milliseconds(20)); ++i) take(from_child_, output_);
  output_.clear();
}

bool VmProcess::has_output(milliseconds timeout) {
  pollfd wait{from_child_.get(), POLLIN, 0};
  return ::poll(&wait, 1, static_cast<int>(timeout.count())) == 1;
}

void VmProcess::send(std::string_view text) {
  auto result = write_full(to_child_, std::as_bytes(std::span(text)), "the child's stdin");
  EXPECT_TRUE(result.has_value());
}

void VmProcess::signal(int number) {
  if (pid_ > 0) ::kill(pid_, number);  // -1 would be everybody
}

std::optional<int> VmProcess::wait_exit(std::chrono::seconds timeout) {
  auto deadline = Clock::now() + timeout;
  while (running()) {
    if (Clock::now() > deadline) return std::nullopt;
    pump(kSlice);
  }
  // What the child wrote last may still be in the pipes; a terminal's reader sees no end of file.
  for (int i = 0; i < 20 && (from_child_ || errors_from_child_); ++i) {
    size_t before = output_.size() + errors_.size();
    pump(milliseconds(10));
    if (terminal_end_ && output_.size() + errors_.size() == before) break;
  }
  return status_;
}

std::optional<int> VmProcess::wait_exit_unread(std::chrono::seconds timeout) {
  auto deadline = Clock::now() + timeout;
  while (running() && Clock::now() < deadline) ::poll(nullptr, 0, 10);
  return status_;
}

std::string crosvm_binary() { return environment("CROSVM_BIN"); }

std::string image(std::string_view kernel, std::string_view name) {
  return environment("CROSVM_IMAGES") + "/" + std::string(kernel) + "/" + std::string(name);
}

ScratchDirectory::ScratchDirectory() {
  // The test host's /tmp is a tmpfs of Linux 6.1, which has no O_DIRECT; its /scratch is an ext4
  // disk.
  const bool test_host = std::getenv("CROSVM_TESTHOST") != nullptr;
  path_ = test_host && std::filesystem::is_directory("/scratch") ? "/scratch" : "/tmp";
  path_ += "/crosvm-test-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "mkdtemp in " << path_ << " failed";
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;  // a leftover is not what the test is about
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> ScratchDirectory::entries() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace crosvm::test
