#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "vhost/conformance/backend_conformance.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_kernel_backend.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

constexpr const char* kVhostNet = "/dev/vhost-net";
constexpr const char* kTun = "/dev/net/tun";
constexpr size_t kHeader = 12;          // struct virtio_net_hdr_v1
constexpr uint16_t kProtocol = 0x88b5;  // IEEE 802: local experiments
constexpr size_t kFrame = 60;
constexpr size_t kNumberAt = 14;

/// A tap of its own, up, and a socket on which its frames are seen.
struct Tap {
  Fd queue;
  Fd seen;

  static Result<Tap> create() {
    Tap made;
    made.queue = TRY(open_path(kTun, O_RDWR | O_NONBLOCK));
    ifreq request{};
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    int header = kHeader;
    if (::ioctl(made.queue.get(), TUNSETIFF, &request) != 0 ||
        ::ioctl(made.queue.get(), TUNSETVNETHDRSZ, &header) != 0) {
      return fail(Error::from_errno("making a tap with", kTun));
    }
    made.seen = Fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(kProtocol)));
    if (!made.seen) return fail(Error::from_errno("opening", "a packet socket"));
    if (::ioctl(made.seen.get(), SIOCGIFFLAGS, &request) != 0) {
      return fail(Error::from_errno("asking", "the tap"));
    }
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    if (::ioctl(made.seen.get(), SIOCSIFFLAGS, &request) != 0) {
      return fail(Error::from_errno("setting up", "the tap"));
    }
    sockaddr_ll at{};
    at.sll_family = AF_PACKET;
    at.sll_protocol = htons(kProtocol);
    at.sll_ifindex = static_cast<int>(::if_nametoindex(request.ifr_name));
    if (::bind(made.seen.get(), reinterpret_cast<sockaddr*>(&at), sizeof(at)) != 0) {
      return fail(Error::from_errno("listening to", "the tap"));
    }
    return made;
  }
};

std::string missing() {
  if (auto device = open_path(kVhostNet, O_RDWR); !device) return device.error().what();
  if (auto tap = Tap::create(); !tap) return tap.error().what();
  return {};
}

template <class T>
T must(Result<T> result) {
  if (!result) ADD_FAILURE() << result.error().what();
  CHECK(result.has_value());
  return std::move(*result);
}

/// A network device on a tap: what it sends on queue 1 is seen on the tap.
class NetSubject : public BackendSubject {
 public:
  explicit NetSubject(const SubjectOptions&) : tap_(must(Tap::create())) {}

  std::unique_ptr<DeviceBackend> take_backend() override {
    VhostNet net;
    net.devices.push_back(must(open_path(kVhostNet, O_RDWR)));
    net.taps.push_back(must(tap_.queue.duplicate()));
    DeviceInfo info{.name = "net0",
                    .device_type = 1,
                    .features = uint64_t{1} << VIRTIO_F_VERSION_1 |
                                uint64_t{1} << VIRTIO_RING_F_EVENT_IDX |
                                uint64_t{1} << VIRTIO_RING_F_INDIRECT_DESC,
                    .queue_sizes = {256, 256},
                    .config = std::vector<std::byte>(12)};
    return must(VhostKernelBackend::create(control_.loop(),
                                           {.info = std::move(info), .kind = std::move(net)}));
  }
  uint16_t queue() const override { return 1; }

  std::vector<RigBuffer> request(unsigned number) override {
    std::array<std::byte, kHeader + kFrame> bytes{};
    const auto frame = std::span(bytes).subspan(kHeader);
    std::ranges::fill(frame.first(6), std::byte{0xff});  // to all
    frame[6] = std::byte{0x02};                          // a local address
    frame[12] = std::byte{kProtocol >> 8};
    frame[13] = std::byte{kProtocol & 0xff};
    std::memcpy(frame.data() + kNumberAt, &number, sizeof(number));
    return {readable(std::span<const std::byte>(bytes).first(kHeader)),
            readable(std::span<const std::byte>(bytes).subspan(kHeader))};
  }
  void expect_answer(const RigUsed& used, unsigned number) override {
    EXPECT_TRUE(used.arrived) << "frame " << number;
    // Others may have been sent before without being looked for.
    while (auto seen = next_frame()) {
      if (*seen == number) return;
    }
    ADD_FAILURE() << "frame " << number << " was not seen on the tap";
  }

 private:
  std::optional<unsigned> next_frame() const {
    std::array<std::byte, 2048> frame{};
    pollfd waiting{.fd = tap_.seen.get(), .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, 10'000) <= 0) return {};
    const ssize_t got = ::recv(tap_.seen.get(), frame.data(), frame.size(), 0);
    if (got < static_cast<ssize_t>(kFrame)) return {};
    unsigned number = 0;
    std::memcpy(&number, frame.data() + kNumberAt, sizeof(number));
    return number;
  }

  Tap tap_;
  LoopThread control_;
};

}  // namespace

BackendMaker vhost_net_maker() {
  return {
      .name = "VhostNet",
      .abilities = {.needs_reset = true},
      .missing = missing,
      .make = [](const SubjectOptions& options) { return std::make_unique<NetSubject>(options); }};
}

}  // namespace crosvm
