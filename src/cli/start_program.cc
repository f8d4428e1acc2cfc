#include "cli/start_program.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <optional>

#include "base/fd.h"
#include "base/format.h"
#include "base/wait_ready.h"

namespace crosvm::doctor {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{10};

/// Its output and errors go to `told`.
Result<pid_t> spawn(const std::string& path, const Fd& told) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, told.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, told.get(), STDERR_FILENO);
  std::string program = path;
  std::string check = "--check";
  char* arguments[] = {program.data(), check.data(), nullptr};
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, path.c_str(), &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail(Error::from_errno("executing", path, error));
  return pid;
}

/// What is written until all of its other ends are closed; nothing when that takes too long.
std::optional<std::string> hear_out(const Fd& hear, Clock::time_point late) {
  constexpr size_t kMostBytes = 16 << 10;
  std::string said;
  while (true) {
    const auto waited = wait_ready(hear, POLLIN, late);
    if (!waited || *waited != Waited::kReady) return std::nullopt;
    std::array<char, 1024> part;
    const ssize_t got = ::read(hear.get(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return said;
    said.append(part.data(), std::min(static_cast<size_t>(got), kMostBytes - said.size()));
  }
}

/// Whether the process ends in time; it is not reaped.
bool ends(pid_t pid, Clock::time_point late) {
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const auto waited = wait_ready(process, POLLIN, late);
  return waited && *waited == Waited::kReady;
}

std::string describe(int status) {
  if (WIFEXITED(status)) return format_text("it ends with status {}", WEXITSTATUS(status));
  return format_text("it is killed by signal {}", WTERMSIG(status));
}

}  // namespace

Result<void> start_program(const std::string& path) {
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) return fail(Error::from_errno("creating", "a pipe"));
  const Fd hear(pipe[0]);
  Fd told(pipe[1]);
  const pid_t pid = TRY(spawn(path, told));
  told = {};
  const auto late = Clock::now() + kPatience;
  const std::optional<std::string> said = hear_out(hear, late);
  const bool ended = said && ends(pid, late);
  if (!ended) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (!ended) {
    return fail(Error(std::errc::timed_out,
                      format_text("{} does not end within {} seconds", path, kPatience.count())));
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  const std::string line = said->substr(0, said->find('\n'));
  return fail(Error(std::errc::io_error, line.empty() ? path + ": " + describe(status) : line));
}

}  // namespace crosvm::doctor
