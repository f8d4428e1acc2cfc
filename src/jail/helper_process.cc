#include "jail/helper_process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "base/format.h"
#include "base/start_error.h"

namespace crosvm {
namespace {

[[noreturn]] void live(const Fd& kept, const std::function<void()>& work) {
  const unsigned number = static_cast<unsigned>(kept.get());
  if (number > STDERR_FILENO + 1) (void)::close_range(STDERR_FILENO + 1, number - 1, 0);
  (void)::close_range(number + 1, ~0U, 0);
  // They reach all that a terminal or a service has started; what we do goes on to its end.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::signal(signal, SIG_IGN);
  (void)::setpgid(0, 0);
  work();
  ::_exit(0);
}

}  // namespace

Result<void> start_helper(const Fd& kept, std::string_view purpose,
                          const std::function<void()>& work) {
  // By way of a process in between, so that nobody here has to wait for its end.
  const std::string object = format_text("a process that {}", purpose);
  const pid_t between = ::fork();
  if (between < 0) return fail(start_error("starting", object, errno));
  if (between == 0) {
    const pid_t child = ::fork();
    if (child == 0) live(kept, work);
    ::_exit(child < 0 ? errno : 0);
  }
  int status = 0;
  while (::waitpid(between, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  const int error = WIFEXITED(status) ? WEXITSTATUS(status) : EAGAIN;
  return fail(start_error("starting", object, error));
}

}  // namespace crosvm
