#include "vmm/terminal_size.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <utility>

namespace crosvm {
namespace {

std::atomic<int> g_wake{-1};  // an eventfd; all that the handler can reach
static_assert(std::atomic<int>::is_always_lock_free);

void on_resize(int) {
  const int saved_errno = errno;
  const uint64_t one = 1;
  const int wake = g_wake;
  if (wake >= 0) {
    [[maybe_unused]] const ssize_t put = ::write(wake, &one, sizeof(one));
  }
  errno = saved_errno;
}

void handle_resize(void (*handler)(int)) {
  struct sigaction action{};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;  // a window that changes its size is no reason to fail
  ::sigaction(SIGWINCH, &action, nullptr);
}

}  // namespace

TerminalSizes::TerminalSizes(EventLoop& loop, std::function<void(ConsoleSize)> changed)
    : loop_(loop), changed_(std::move(changed)) {}

Result<std::unique_ptr<TerminalSizes>> TerminalSizes::watch(
    EventLoop& loop, std::function<void(ConsoleSize)> changed) {
  std::unique_ptr<TerminalSizes> self(new TerminalSizes(loop, std::move(changed)));
  TerminalSizes* raw = self.get();
  self->wake_ = TRY(make_eventfd());
  self->watch_ = TRY(loop.watch(self->wake_, EPOLLIN, [raw](uint32_t) {
    drain_eventfd(raw->wake_);
    raw->tell();
  }));
  g_wake = self->wake_.get();
  handle_resize(on_resize);
  self->tell();
  return self;
}

TerminalSizes::~TerminalSizes() {
  if (watch_ == 0) return;
  handle_resize(SIG_DFL);
  g_wake = -1;
  loop_.unwatch(watch_);
}

void TerminalSizes::tell() {
  winsize size{};
  if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0) return;
  if (size.ws_col != 0 && size.ws_row != 0) changed_({.cols = size.ws_col, .rows = size.ws_row});
}

}  // namespace crosvm
