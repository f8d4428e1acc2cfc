#include "devices/net/tap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "devices/net/ip_address.h"
#include "devices/net/net_device.h"

namespace crosvm {
namespace {

constexpr const char* kTun = "/dev/net/tun";
constexpr const char* kNewName = "vmtap%d";

/// The sentence of an errno, with what helps against it.
Error explained(const std::string& doing, const std::string& tap, int error_number,
                uint16_t pairs) {
  Error error = Error::from_errno(doing, tap, error_number);
  std::string help;
  switch (error_number) {
    case EPERM:
    case EACCES:
      help = format_text(
          "; it needs CAP_NET_ADMIN, or a tap made for this user: ip tuntap add mode tap user "
          "NAME{} vnet_hdr name {}",
          pairs > 1 ? " multi_queue" : "", tap.starts_with("vmtap") ? "TAP" : tap);
      break;
    case EBUSY:
      help = "; another process has it, or as many queues of it as there are; use another tap";
      break;
    case EINVAL:
      help = pairs > 1 ? "; the interface is no tap, or one of a single queue: make it with "
                         "multi_queue, or give vq-pairs=1"
                       : "; an interface of that name is no tap; use another name";
      break;
    case E2BIG:
      help = "; a tap has no so many queues; give fewer vq-pairs";
      break;
    default:
      break;
  }
  return Error(error.code(), error.what() + help);
}

Result<void> check_name(const std::string& name) {
  const bool odd =
      name.empty() || name == "." || name == ".." || std::ranges::any_of(name, [](unsigned char c) {
        return c == '/' || c == ':' || c <= ' ' || c == 0x7f;
      });
  if (odd) {
    return fail(Error::invalid(format_text(
        "tap-name `{}` cannot be the name of an interface; use letters, digits, `-` and `_`",
        name)));
  }
  if (name.size() < IFNAMSIZ) return {};
  return fail(
      Error::invalid(format_text("tap-name {} has {} characters; an interface's name has at "
                                 "most {}",
                                 name, name.size(), IFNAMSIZ - 1)));
}

Result<Fd> open_tun() {
  auto tun = open_path(kTun, O_RDWR | O_NONBLOCK);
  if (tun) return tun;
  const std::errc code = tun.error().code();
  const bool missing = code == std::errc::no_such_file_or_directory ||
                       code == std::errc::no_such_device ||
                       code == std::errc::no_such_device_or_address;
  return fail(Error(code, format_text("{}; {}", tun.error().what(),
                                      missing ? "taps need the kernel's module: modprobe tun"
                                              : "taps need access to it")));
}

ifreq request_for(const std::string& name) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min<size_t>(name.size(), IFNAMSIZ - 1));
  return request;
}

std::string name_in(const ifreq& request) {
  return {request.ifr_name, ::strnlen(request.ifr_name, IFNAMSIZ)};
}

/// Binds an open /dev/net/tun to a queue of the tap `name`, or of a new one by a pattern. Returns
/// the name. Errors: an errno.
std::expected<std::string, int> bind_queue(const Fd& tun, const std::string& name, bool many) {
  ifreq request = request_for(name);
  request.ifr_flags =
      static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (many ? IFF_MULTI_QUEUE : 0));
  if (::ioctl(tun.get(), TUNSETIFF, &request) != 0) return std::unexpected(errno);
  return name_in(request);
}

Result<void> set_header(const Fd& queue, const std::string& name) {
  const int bytes = kNetHeaderBytes;
  if (::ioctl(queue.get(), TUNSETVNETHDRSZ, &bytes) == 0) return {};
  return fail(Error::from_errno("setting the size of packet headers of tap", name));
}

/// One more queue of a tap that there is.
Result<void> add_queue(Tap& tap, uint16_t pairs, bool many) {
  Fd tun = TRY(open_tun());
  const auto bound = bind_queue(tun, tap.name, many);
  if (!bound) {
    return fail(explained("attaching to tap", tap.name, bound.error(), pairs));
  }
  tap.name = *bound;
  TRY(set_header(tun, tap.name));
  tap.queues.push_back(std::move(tun));
  return {};
}

Result<Fd> any_socket() {
  Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail(Error::from_errno("opening", "a socket to configure a tap with"));
  return socket;
}

/// What an interface is given: its value is named in errors.
struct Setting {
  std::string_view what;
  std::string value;
  std::string_view fix;  ///< against a value that none can have
};

/// Makes a request of SIOCS… about a tap.
Result<void> configure(const Fd& socket, unsigned long code, const ifreq& request,
                       const Setting& setting) {
  if (::ioctl(socket.get(), code, &request) == 0) return {};
  const int error = errno;
  const std::string doing = format_text("setting the {}{}{} of tap", setting.what,
                                        setting.value.empty() ? "" : " ", setting.value);
  if (error != EINVAL && error != EADDRNOTAVAIL) {
    return fail(explained(doing, name_in(request), error, /*pairs=*/1));
  }
  const Error why = Error::from_errno(doing, name_in(request), error);
  return fail(Error(why.code(), format_text("{}; {}", why.what(), setting.fix)));
}

Result<void> bring_up(const Fd& socket, const std::string& name) {
  ifreq request = request_for(name);
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) {
    return fail(Error::from_errno("looking at tap", name));
  }
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  return configure(socket, SIOCSIFFLAGS, request,
                   {.what = "link state", .value = "up", .fix = "use another tap"});
}

void learn_mtu(Tap& tap) {
  auto socket = any_socket();
  ifreq request = request_for(tap.name);
  if (!socket || ::ioctl(socket->get(), SIOCGIFMTU, &request) != 0) return;
  // A driver takes nothing below what IPv4 needs (virtio 1.3 §5.1.4.1).
  constexpr int kLeast = 68;
  if (request.ifr_mtu >= kLeast && request.ifr_mtu <= UINT16_MAX) {
    tap.mtu = static_cast<uint16_t>(request.ifr_mtu);
  }
}

std::string text_of(const Ipv4Address& ip) {
  return IpAddress::v4(ip[0], ip[1], ip[2], ip[3]).to_text();
}

sockaddr ip_address(const Ipv4Address& ip) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  std::memcpy(&address.sin_addr, ip.data(), ip.size());
  sockaddr any{};
  static_assert(sizeof(any) == sizeof(address));
  std::memcpy(&any, &address, sizeof(any));
  return any;
}

}  // namespace

Result<Tap> attach_tap(const std::string& name, uint16_t pairs) {
  TRY(check_name(name));
  const bool existed = ::if_nametoindex(name.c_str()) != 0;
  Tap tap{.name = name, .queues = {}};
  bool many = pairs > 1;
  auto first = add_queue(tap, pairs, many);
  if (!first && !many && first.error().code() == std::errc::invalid_argument) {
    many = true;  // one of a tap's many queues will do
    if (add_queue(tap, pairs, many)) first = {};
  }
  TRY(std::move(first));
  while (tap.queues.size() < pairs) TRY(add_queue(tap, pairs, many));
  if (!existed) TRY(bring_up(TRY(any_socket()), tap.name));
  learn_mtu(tap);
  return tap;
}

Result<Tap> adopt_tap(int number, uint16_t pairs) {
  const std::string object = format_text("tap-fd={}", number);
  auto given = open_path(format_text("{}{}", kOwnDescriptors, number), O_RDWR);
  if (!given) {
    return fail(
        Error(given.error().code(),
              format_text("{}: crosvm was started with no such descriptor, or another card has "
                          "it; leave the tap open as {} and not close-on-exec, or give "
                          "tap-name instead",
                          object, number)));
  }
  Fd queue = *std::move(given);
  ifreq request{};
  if (::ioctl(queue.get(), TUNGETIFF, &request) != 0) {
    return fail(Error::invalid(
        format_text("{}: it is no tap ({}); give the number of a descriptor of {} with IFF_TAP",
                    object, std::strerror(errno), kTun)));
  }
  std::string lacks;
  const auto need = [&](int flag, const char* name) {
    if ((request.ifr_flags & flag) == 0)
      lacks += format_text("{}{}", lacks.empty() ? "" : ", ", name);
  };
  need(IFF_TAP, "IFF_TAP");
  need(IFF_NO_PI, "IFF_NO_PI");
  need(IFF_VNET_HDR, "IFF_VNET_HDR");
  if (pairs > 1) need(IFF_MULTI_QUEUE, "IFF_MULTI_QUEUE (for vq-pairs)");
  if (!lacks.empty()) {
    return fail(Error::invalid(format_text("{}: its tap {} lacks {}; open it with these flags",
                                           object, name_in(request), lacks)));
  }
  const int flags = ::fcntl(queue.get(), F_GETFL);
  if (flags < 0 || ::fcntl(queue.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail(Error::from_errno("setting the flags of", object));
  }
  Tap tap{.name = name_in(request), .queues = {}};
  TRY(set_header(queue, tap.name));
  // Of this card alone: another one would take its packets.
  (void)::fcntl(number, F_SETFD, FD_CLOEXEC);
  tap.queues.push_back(std::move(queue));
  while (tap.queues.size() < pairs) TRY(with_context(add_queue(tap, pairs, true), object));
  learn_mtu(tap);
  return tap;
}

Result<Tap> make_tap(const TapAddress& address, uint16_t pairs) {
  Tap tap{.name = kNewName, .queues = {}};
  TRY(add_queue(tap, pairs, pairs > 1));
  while (tap.queues.size() < pairs) TRY(add_queue(tap, pairs, true));
  const Fd socket = TRY(any_socket());
  ifreq request = request_for(tap.name);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  std::memcpy(request.ifr_hwaddr.sa_data, address.mac.data(), address.mac.size());
  TRY(configure(socket, SIOCSIFHWADDR, request,
                {.what = "MAC address",
                 .value = mac_text(address.mac),
                 .fix = "an interface has one of a single station, as 02:00:00:00:00:01"}));
  request = request_for(tap.name);
  request.ifr_addr = ip_address(address.ip);
  TRY(configure(socket, SIOCSIFADDR, request,
                {.what = "IP address",
                 .value = text_of(address.ip),
                 .fix = "an interface has one of a single host, as 192.168.10.1"}));
  request.ifr_netmask = ip_address(address.netmask);
  TRY(configure(socket, SIOCSIFNETMASK, request,
                {.what = "netmask",
                 .value = text_of(address.netmask),
                 .fix = "its ones come before its zeros, as in 255.255.255.0"}));
  TRY(bring_up(socket, tap.name));
  learn_mtu(tap);
  return tap;
}

Result<NetResources> NetFactory::open(const Config& config) {
  Tap tap = TRY(attach_tap(config.network, config.vq_pairs));
  return NetResources{.taps = std::move(tap.queues), .memory = TRY(NetMemory::create())};
}

}  // namespace crosvm
