#include "vmm/end_signals.h"

#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <utility>

#include "platform/terminal.h"

namespace crosvm {
namespace {

constexpr int kEndSignals[] = {SIGINT, SIGTERM, SIGHUP};

/// Those that our parent did not want us to ignore.
sigset_t end_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (int number : kEndSignals) {
    struct sigaction inherited{};
    bool ignored = ::sigaction(number, nullptr, &inherited) == 0 && inherited.sa_handler == SIG_IGN;
    if (!ignored) ::sigaddset(&set, number);
  }
  return set;
}

void set_handler(const sigset_t& set, void (*handler)(int)) {
  struct sigaction action{};
  action.sa_handler = handler;
  for (int number : kEndSignals) {
    if (::sigismember(&set, number) == 1) ::sigaction(number, &action, nullptr);
  }
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
  self->set_ = end_signals();
  if (int error = ::pthread_sigmask(SIG_BLOCK, &self->set_, nullptr); error != 0) {
    return fail(Error::from_errno("blocking", "SIGINT, SIGTERM and SIGHUP", error));
  }
  self->signals_ = Fd(::signalfd(-1, &self->set_, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!self->signals_) return fail(Error::from_errno("creating", "a signalfd"));
  EndSignals* raw = self.get();
  self->watch_ = TRY(loop.watch(self->signals_, EPOLLIN, [raw](uint32_t) { raw->on_readable(); }));
  return self;
}

EndSignals::~EndSignals() {
  if (watch_ != 0) loop_.unwatch(watch_);
  // One that came during the orderly end must not turn that into a death by signal.
  signalfd_siginfo dropped{};
  while (signals_ && ::read(signals_.get(), &dropped, sizeof(dropped)) > 0) {
  }
  set_handler(set_, SIG_DFL);
  ::pthread_sigmask(SIG_UNBLOCK, &set_, nullptr);
}

void EndSignals::on_readable() {
  signalfd_siginfo info{};
  if (::read(signals_.get(), &info, sizeof(info)) != static_cast<ssize_t>(sizeof(info))) return;
  set_handler(set_, kill_at_once);
  ::pthread_sigmask(SIG_UNBLOCK, &set_, nullptr);
  first_(static_cast<int>(info.ssi_signo));
}

}  // namespace crosvm
