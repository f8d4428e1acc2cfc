#include "vmm/end_signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <utility>

#include "platform/terminal.h"

namespace crosvm {
namespace {

constexpr int kEndSignals[] = {SIGINT, SIGTERM, SIGHUP};
constexpr int kFaultSignals[] = {SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};

// What the handlers share with the loop. Lock-free, so async-signal-safe.
std::atomic<int> g_first_signal{0};
std::atomic<int64_t> g_first_ms{0};  // when it came; 0: it is just coming
std::atomic<int> g_wake{-1};         // an eventfd
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<int64_t>::is_always_lock_free);

/// What comes so soon after the first is one request with it: timeout(1) signals its child and then
/// the whole group, service managers send SIGHUP after SIGTERM.
constexpr int64_t kSameRequestMs = 1000;

int64_t now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

/// Delivered as soon as the handler returns: the signal is blocked until then.
void die_by(int number) {
  restore_terminal();
  ::signal(number, SIG_DFL);
  ::raise(number);
}

/// Who types a key twice means it twice. The kernel also sends SIGHUP, when a terminal is closed
/// whose shell may have sent one before.
bool is_typed(const siginfo_t& signal) {
  return signal.si_code == SI_KERNEL && signal.si_signo == SIGINT;
}

bool belongs_to_first(const siginfo_t& signal) {
  const int64_t first = g_first_ms;
  return !is_typed(signal) && (first == 0 || now_ms() - first < kSameRequestMs);
}

void on_end_signal(int number, siginfo_t* signal, void*) {
  int saved_errno = errno;
  int none = 0;
  if (g_first_signal.compare_exchange_strong(none, number)) {
    g_first_ms = now_ms();
    uint64_t one = 1;
    [[maybe_unused]] ssize_t put = ::write(g_wake, &one, sizeof(one));  // cannot fail: not full
  } else if (!belongs_to_first(*signal)) {
    die_by(number);
  }
  errno = saved_errno;
}

void handle_end(int number) {
  struct sigaction action{};
  action.sa_sigaction = on_end_signal;  // without SA_RESTART: what waits for a peer must come back
  action.sa_flags = SA_SIGINFO;
  ::sigaction(number, &action, nullptr);
}

void handle(int number, void (*handler)(int), int flags = 0) {
  struct sigaction action{};
  action.sa_handler = handler;
  action.sa_flags = flags;
  ::sigaction(number, &action, nullptr);
}

/// The shell gets its terminal as it was, and we stop here until it lets us go on.
void on_stop_signal(int number) {
  const int saved_errno = errno;
  pause_terminal();
  ::signal(number, SIG_DFL);
  ::raise(number);
  sigset_t stop;
  sigset_t before;
  sigemptyset(&stop);
  sigaddset(&stop, number);
  ::pthread_sigmask(SIG_UNBLOCK, &stop, &before);  // here
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  handle(number, on_stop_signal, SA_RESTART);
  resume_terminal();
  errno = saved_errno;
}

/// Also after SIGSTOP, which has no handler.
void on_continue(int) { resume_terminal(); }

bool has_default_action(int number) {
  struct sigaction now{};
  return ::sigaction(number, nullptr, &now) == 0 && now.sa_handler == SIG_DFL;
}

}  // namespace

EndSignals::EndSignals(EventLoop& loop, std::function<void(int)> first)
    : loop_(loop), first_(std::move(first)) {}

Result<std::unique_ptr<EndSignals>> EndSignals::create(EventLoop& loop,
                                                       std::function<void(int)> first) {
  std::unique_ptr<EndSignals> self(new EndSignals(loop, std::move(first)));
  self->wake_ = TRY(make_eventfd());
  EndSignals* raw = self.get();
  self->watch_ = TRY(loop.watch(self->wake_, EPOLLIN, [raw](uint32_t) {
    if (drain_eventfd(raw->wake_) != 0) raw->first_(g_first_signal);
  }));
  g_first_signal = 0;
  g_first_ms = 0;
  g_wake = self->wake_.get();
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
  for (int number : kEndSignals) {
    if (has_default_action(number)) handle_end(number);
  }
  if (has_default_action(SIGTSTP)) handle(SIGTSTP, on_stop_signal, SA_RESTART);
  if (has_default_action(SIGCONT)) handle(SIGCONT, on_continue, SA_RESTART);
  for (int number : kFaultSignals) {
    if (has_default_action(number)) handle(number, die_by);
  }
  return self;
}

EndSignals::~EndSignals() {
  if (watch_ != 0) loop_.unwatch(watch_);
  // Our handlers stay: what comes during the rest of an orderly end must not turn it into a death
  // by signal. The eventfd goes, so nothing is woken any more.
  g_wake = -1;
}

int EndSignals::received() { return g_first_signal; }

EndSignals::Held::Held() {
  sigset_t held;
  sigemptyset(&held);
  for (const int number : kEndSignals) sigaddset(&held, number);
  ::pthread_sigmask(SIG_BLOCK, &held, &before_);
}

EndSignals::Held::~Held() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

}  // namespace crosvm
