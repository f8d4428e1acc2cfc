// The guest's side of the agent: guest_agent [NAME] serves the virtio port NAME ("agent") for as
// long as the guest runs. docs/guest-agent.md has the protocol.

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/reboot.h>
#include <unistd.h>

#include <algorithm>

#include "base/fd.h"
#include "guest/agent/port.h"
#include "guest/agent/session.h"

namespace {

constexpr useconds_t kFirstPauseUs = 20'000;
constexpr useconds_t kLongestPauseUs = 2'000'000;

using crosvm::Fd;

/// At once, but with nothing lost: file systems are written out and made read-only first.
void power_off() {
  ::sync();
  if (Fd trigger(::open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC)); trigger) {
    [[maybe_unused]] ssize_t ignored = ::write(trigger.get(), "u", 1);
  }
  ::sync();
  ::reboot(RB_POWER_OFF);
}

}  // namespace

int main(int argc, char** argv) {
  using crosvm::agent::PortFinder;
  using crosvm::agent::Session;
  if (!crosvm::ensure_standard_descriptors()) return 1;
  ::signal(SIGPIPE, SIG_IGN);
  // What commands expect of a login; init gives us less.
  ::setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
  ::setenv("HOME", "/root", 0);

  PortFinder finder(argc > 1 ? argv[1] : "agent");
  useconds_t pause = kFirstPauseUs;
  for (;;) {
    Fd port = finder.open();
    if (!port) {
      finder.wait_for_change();
      continue;
    }
    bool host_was_there = Session(std::move(port), power_off).serve();
    // Nobody at the other end: the port says so at once, each time.
    pause = host_was_there ? kFirstPauseUs : std::min(pause * 2, kLongestPauseUs);
    ::usleep(pause);
  }
}
