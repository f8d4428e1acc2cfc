#include "devices/net/user/rig/kernel_guest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <future>
#include <span>

#include "devices/net/user/rig/test_network.h"

namespace crosvm {
namespace {

constexpr const char* kCard = "eth0";

ifreq about(const char* interface) {
  ifreq request{};
  std::strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  return request;
}
void put_ipv4(sockaddr& to, const char* address) {
  std::memcpy(&to, SocketAddress(ip(address), 0).get(), sizeof(to));
}
void request(const Fd& socket, unsigned long code, void* argument) {
  EXPECT_EQ(::ioctl(socket.get(), code, argument), 0) << code << ": " << std::strerror(errno);
}

void set_up(const Fd& socket, const char* interface, bool up) {
  ifreq flags = about(interface);
  flags.ifr_flags = up ? IFF_UP : 0;
  request(socket, SIOCSIFFLAGS, &flags);
}

}  // namespace

std::string KernelGuest::missing() {
  return ::access("/dev/net/tun", R_OK | W_OK) == 0
             ? ""
             : std::string("/dev/net/tun: ") + std::strerror(errno);
}

KernelGuest::KernelGuest(std::string_view config, FlowLedger::Limits limits, int mtu)
    : loop_(*EventLoop::create()),
      memory_([] {
        const RamRange ram{GuestAddress(0), 1 << 20};
        return *GuestMemory::create(std::span(&ram, 1), {});
      }()),
      host_(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
  EXPECT_EQ(::unshare(CLONE_NEWNET), 0);
  guest_ = Fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  make_card(mtu);
  EXPECT_EQ(::setns(host_.get(), CLONE_NEWNET), 0);
  add_ipv6("fd00:2::15");

  auto parsed = UserNetConfig::parse(*KeyValues::parse(config));
  EXPECT_TRUE(parsed.has_value()) << parsed.error().what();
  auto port = UserNetPort::create(*loop_, *parsed, limits);
  EXPECT_TRUE(port.has_value()) << port.error().what();
  port_ = *std::move(port);
  port_->begin(
      {.receivable = [this] { to_card(); }, .sendable = [] {}, .link_changed = [](bool) {}});
  port_->listen(true);
  watch_ = *loop_->watch(card_, EPOLLIN, [this](uint32_t) { from_card(); });
  thread_ = std::thread([this] { EXPECT_TRUE(loop_->run()); });
}

KernelGuest::~KernelGuest() {
  end();
  loop_->stop();
  thread_.join();
}

void KernelGuest::make_card(int mtu) {
  const Fd four(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  set_up(four, "lo", true);
  card_ = Fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  ifreq tap = about(kCard);
  tap.ifr_flags = IFF_TAP | IFF_NO_PI;
  request(card_, TUNSETIFF, &tap);
  // Addresses serve at once, as nobody else can have them, and outlive a card that is down.
  std::ofstream("/proc/sys/net/ipv6/conf/eth0/accept_dad") << "0";
  std::ofstream("/proc/sys/net/ipv6/conf/eth0/keep_addr_on_down") << "1";
  // No others: a server of datagrams answers from any that it has.
  std::ofstream("/proc/sys/net/ipv6/conf/eth0/autoconf") << "0";
  ifreq size = about(kCard);
  size.ifr_mtu = mtu;
  request(four, SIOCSIFMTU, &size);
  ifreq address = about(kCard);
  put_ipv4(address.ifr_addr, "10.0.2.15");
  request(four, SIOCSIFADDR, &address);
  put_ipv4(address.ifr_netmask, "255.255.255.0");
  request(four, SIOCSIFNETMASK, &address);
  set_up(four, kCard, true);
  ifreq second = about("eth0:1");
  put_ipv4(second.ifr_addr, "10.0.2.20");
  request(four, SIOCSIFADDR, &second);
  rtentry route{};
  put_ipv4(route.rt_gateway, "10.0.2.2");
  put_ipv4(route.rt_dst, "0.0.0.0");
  put_ipv4(route.rt_genmask, "0.0.0.0");
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  request(four, SIOCADDRT, &route);
}

void KernelGuest::add_ipv6(const char* address) const {
  inside([&] {
    const Fd socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    in6_ifreq asked{};
    asked.ifr6_ifindex = static_cast<int>(::if_nametoindex(kCard));
    asked.ifr6_prefixlen = 64;
    std::memcpy(&asked.ifr6_addr, ip(address).bytes.data(), 16);
    request(socket, SIOCSIFADDR, &asked);
    // The kernel makes it its own on a thread, later.
    const SocketAddress at(ip(address), 0);
    for (int tries = 0; tries < 2000; ++tries) {
      const Fd probe(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      if (::bind(probe.get(), at.get(), at.size) == 0) return;
      ::usleep(10'000);
    }
    ADD_FAILURE() << "the card does not get " << address;
  });
}

void KernelGuest::inside(const std::function<void()>& act) const {
  EXPECT_EQ(::setns(guest_.get(), CLONE_NEWNET), 0);
  act();
  EXPECT_EQ(::setns(host_.get(), CLONE_NEWNET), 0);
}

void KernelGuest::set_card_up(bool up) {
  inside([up] {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    set_up(socket, kCard, up);
  });
}

void KernelGuest::on_loop(const std::function<void()>& act) {
  std::promise<void> done;
  loop_->post([&] {
    act();
    done.set_value();
  });
  done.get_future().wait();
}

size_t KernelGuest::tcp() {
  size_t count = 0;
  on_loop([&] { count = port_->flows().tcp(); });
  return count;
}

void KernelGuest::end() {
  on_loop([this] {
    if (watch_ != 0) loop_->unwatch(std::exchange(watch_, 0));
    port_.reset();
  });
}

ChainBuffers KernelGuest::room(size_t bytes) {
  slices_ = {*memory_.slice(GuestAddress(0), bytes)};
  return ChainBuffers(slices_);
}

void KernelGuest::from_card() {
  std::array<std::byte, kMostPacketBytes> frame;
  ssize_t got = 0;
  while ((got = ::read(card_.get(), frame.data(), frame.size())) > 0) {
    const ChainBuffers packet = room(static_cast<size_t>(got));
    EXPECT_TRUE(packet.write_bytes(0, std::span(frame).first(static_cast<size_t>(got))));
    EXPECT_EQ(port_->send({}, packet), NetPort::Sent::kDone);
  }
}

void KernelGuest::to_card() {
  const ChainBuffers into = room(kNetHeaderBytes + kMostPacketBytes);
  const auto got = port_->receive(into);
  if (!got) return;
  std::array<std::byte, kMostPacketBytes> frame;
  const auto bytes = std::span(frame).first(*got - kNetHeaderBytes);
  EXPECT_TRUE(into.read_bytes(kNetHeaderBytes, bytes));
  // A card that is down takes none, as any that is full.
  (void)!::write(card_.get(), bytes.data(), bytes.size());
}

}  // namespace crosvm
