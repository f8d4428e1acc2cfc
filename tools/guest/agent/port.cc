#include "guest/agent/port.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <filesystem>
#include <fstream>

namespace crosvm::agent {
namespace {

/// Events can be lost when too many come at once, so we look from time to time all the same.
constexpr int kLookAgainMs = 10'000;
/// The multicast group of the kernel's own events, as opposed to udev's.
constexpr unsigned kKernelEvents = 1;

Fd listen_to_kernel() {
  Fd events(
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = kKernelEvents;
  if (!events || ::bind(events.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
    return Fd();
  return events;
}

}  // namespace

PortFinder::PortFinder(std::string name, std::string ports, std::string devices)
    : name_(std::move(name)),
      ports_(std::move(ports)),
      devices_(std::move(devices)),
      events_(listen_to_kernel()) {}

Fd PortFinder::open() const {
  std::error_code ignored;  // no folder: no port yet
  for (const auto& port : std::filesystem::directory_iterator(ports_, ignored)) {
    std::string name;
    std::getline(std::ifstream(port.path() / "name"), name);
    if (name != name_) continue;
    return Fd(::open((devices_ / port.path().filename()).c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  }
  return Fd();
}

void PortFinder::wait_for_change() const {
  pollfd wait = {events_.get(), POLLIN, 0};  // -1 where the kernel has no events: the time alone
  if (::poll(&wait, 1, kLookAgainMs) <= 0) return;
  std::array<char, 4096> event;
  while (::recv(events_.get(), event.data(), event.size(), 0) > 0) {
  }
}

}  // namespace crosvm::agent
