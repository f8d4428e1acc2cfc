#include "guest/agent/command.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "guest/agent/frame.h"

namespace crosvm::agent {
namespace {

struct Pipe {
  Fd read_end;
  Fd write_end;
};

Result<Pipe> make_pipe() {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(Error::from_errno("creating", "a pipe"));
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

void set_nonblocking(const Fd& fd) { ::fcntl(fd.get(), F_SETFL, O_NONBLOCK); }

/// In the child: never returns. Whatever the agent ignores or blocks is no business of the command.
[[noreturn]] void become(std::vector<char*>& argv, int input, int output, int errors, int report) {
  ::setsid();
  ::signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (::dup2(input, 0) >= 0 && ::dup2(output, 1) >= 0 && ::dup2(errors, 2) >= 0)
    ::execvp(argv[0], argv.data());
  int why = errno;
  [[maybe_unused]] ssize_t ignored = ::write(report, &why, sizeof(why));
  ::_exit(127);
}

}  // namespace

Result<Command> Command::start(const std::vector<std::string>& argv, std::string input) {
  Pipe in = TRY(make_pipe());
  Pipe out = TRY(make_pipe());
  Pipe err = TRY(make_pipe());
  Pipe report = TRY(make_pipe());  // closed by a successful exec
  std::vector<std::string> copies = argv;
  std::vector<char*> pointers;
  for (std::string& copy : copies) pointers.push_back(copy.data());
  pointers.push_back(nullptr);

  Command command;
  command.pid_ = ::fork();
  if (command.pid_ < 0) return fail(Error::from_errno("starting", argv[0]));
  if (command.pid_ == 0)
    become(pointers, in.read_end.get(), out.write_end.get(), err.write_end.get(),
           report.write_end.get());
  report.write_end = Fd();
  int why = 0;
  ssize_t got = 0;
  do {
    got = ::read(report.read_end.get(), &why, sizeof(why));
  } while (got < 0 && errno == EINTR);
  if (got == sizeof(why)) return fail(Error::from_errno("running", argv[0], why));

  command.process_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, command.pid_, 0)));
  if (!command.process_) return fail(Error::from_errno("watching", argv[0]));
  command.input_pipe_ = std::move(in.write_end);
  command.output_ = std::move(out.read_end);
  command.errors_ = std::move(err.read_end);
  for (const Fd* fd : {&command.input_pipe_, &command.output_, &command.errors_})
    set_nonblocking(*fd);
  command.input_ = std::move(input);
  command.write_input();
  return command;
}

Command::Command(Command&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      process_(std::move(other.process_)),
      input_pipe_(std::move(other.input_pipe_)),
      output_(std::move(other.output_)),
      errors_(std::move(other.errors_)),
      input_(std::move(other.input_)) {}

Command::~Command() {
  if (pid_ < 0) return;
  kill_all();
  reap();
}

void Command::write_input() {
  while (!input_.empty()) {
    ssize_t sent = ::write(input_pipe_.get(), input_.data(), input_.size());
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) break;  // nobody reads it
    input_.erase(0, static_cast<size_t>(sent));
  }
  input_pipe_ = Fd();
}

std::string Command::take(Fd& pipe) {
  std::array<char, kMaxChunk> buffer;
  ssize_t got = 0;
  do {
    got = ::read(pipe.get(), buffer.data(), buffer.size());
  } while (got < 0 && errno == EINTR);
  if (got > 0) return std::string(buffer.data(), static_cast<size_t>(got));
  if (got == 0 || errno != EAGAIN) pipe = Fd();
  return "";
}

void Command::kill_all() { ::kill(-pid_, SIGKILL); }

Ending Command::reap() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  if (WIFSIGNALED(status)) return {.signal = WTERMSIG(status)};
  return {.status = WEXITSTATUS(status)};
}

}  // namespace crosvm::agent
