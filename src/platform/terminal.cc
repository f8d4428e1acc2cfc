#include "platform/terminal.h"

#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <utility>

namespace crosvm {
namespace {

constexpr std::byte kCtrlA{1};

// A signal handler can reach nothing but globals. Written before `raw_descriptor` is set, read
// after it was taken.
termios modes_before;
termios modes_raw;
std::atomic<int> raw_descriptor{-1};
static_assert(std::atomic<int>::is_always_lock_free);

/// Also where the shell has the terminal already: must not stop us.
void set_modes_from_background(int fd, const termios& modes) {
  sigset_t background_write;
  sigset_t before;
  sigemptyset(&background_write);
  sigaddset(&background_write, SIGTTOU);
  ::pthread_sigmask(SIG_BLOCK, &background_write, &before);
  ::tcsetattr(fd, TCSANOW, &modes);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

bool EscapeFilter::filter(std::span<const std::byte> typed, std::vector<std::byte>& output) {
  for (std::byte key : typed) {
    if (!after_ctrl_a_) {
      after_ctrl_a_ = key == kCtrlA;
      if (!after_ctrl_a_) output.push_back(key);
      continue;
    }
    after_ctrl_a_ = false;
    if (key == std::byte{'x'}) return true;
    output.push_back(kCtrlA);
    if (key != kCtrlA) output.push_back(key);
  }
  return false;
}

Result<std::optional<RawTerminal>> RawTerminal::enter(const Fd& fd) {
  if (::isatty(fd.get()) == 0) return std::optional<RawTerminal>();
  CHECK(raw_descriptor.load() < 0);
  Fd own = TRY(fd.duplicate());
  if (::tcgetattr(own.get(), &modes_before) != 0) {
    return fail(Error::from_errno("reading the modes of", "the terminal on standard input"));
  }
  termios raw = modes_before;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG | IEXTEN);
  // Enter must arrive as the carriage return that a serial terminal sends, Ctrl-S as a key.
  raw.c_iflag &= ~static_cast<tcflag_t>(BRKINT | ICRNL | INLCR | IGNCR | ISTRIP | IXON);
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  modes_raw = raw;
  // A signal between the two leaves the old modes in place or puts them back.
  raw_descriptor.store(own.release());
  if (::tcsetattr(raw_descriptor.load(), TCSANOW, &raw) != 0) {
    const int error_number = errno;
    ::close(raw_descriptor.exchange(-1));
    return fail(
        Error::from_errno("setting the modes of", "the terminal on standard input", error_number));
  }
  return std::optional<RawTerminal>(RawTerminal());
}

RawTerminal::RawTerminal(RawTerminal&& other) noexcept
    : active_(std::exchange(other.active_, false)) {}

RawTerminal::~RawTerminal() {
  if (active_) restore_terminal();
}

void restore_terminal() {
  const int saved_errno = errno;
  const int fd = raw_descriptor.exchange(-1);
  if (fd >= 0) {
    set_modes_from_background(fd, modes_before);
    ::close(fd);
  }
  errno = saved_errno;
}

void pause_terminal() {
  const int saved_errno = errno;
  if (const int fd = raw_descriptor; fd >= 0) set_modes_from_background(fd, modes_before);
  errno = saved_errno;
}

void resume_terminal() {
  const int saved_errno = errno;
  if (const int fd = raw_descriptor; fd >= 0) ::tcsetattr(fd, TCSANOW, &modes_raw);
  errno = saved_errno;
}

}  // namespace crosvm
