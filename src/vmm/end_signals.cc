#include "vmm/end_signals.h"

#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <utility>

#include "platform/terminal.h"

namespace crosvm {
namespace {

sigset_t end_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&set, number);
  return set;
}

/// Async-signal-safe: runs when a second signal comes, whatever the loop is doing.
void kill_at_once(int number) {
  restore_terminal();
  ::signal(number, SIG_DFL);
  ::raise(number);
}

}  // namespace

EndSignals::EndSignals(EventLoop& loop, std::function<void(int)> first)
    : loop_(loop), first_(std::move(first)) {}

Result<std::unique_ptr<EndSignals>> EndSignals::create(EventLoop& loop,
                                                       std::function<void(int)> first) {
  std::unique_ptr<EndSignals> self(new EndSignals(loop, std::move(first)));
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set = end_signals();
  if (int error = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); error != 0) {
    return fail(Error::from_errno("blocking", "SIGINT, SIGTERM and SIGHUP", error));
  }
  self->signals_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!self->signals_) return fail(Error::from_errno("creating", "a signalfd"));
  EndSignals* raw = self.get();
  self->watch_ = TRY(loop.watch(self->signals_, EPOLLIN, [raw](uint32_t) { raw->on_readable(); }));
  return self;
}

EndSignals::~EndSignals() {
  if (watch_ != 0) loop_.unwatch(watch_);
  // The process is about to end, or a test goes on: either way these act as usual again.
  for (int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, SIG_DFL);
  sigset_t set = end_signals();
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void EndSignals::on_readable() {
  signalfd_siginfo info{};
  if (::read(signals_.get(), &info, sizeof(info)) != static_cast<ssize_t>(sizeof(info))) return;
  struct sigaction action{};
  action.sa_handler = kill_at_once;
  for (int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
  sigset_t set = end_signals();
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  first_(static_cast<int>(info.ssi_signo));
}

}  // namespace crosvm
