#include "net_guest.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <vector>

namespace crosvm::test {

EchoServer::EchoServer() : listener_(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  socklen_t length = sizeof(any);
  EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&any), sizeof(any)), 0);
  EXPECT_EQ(::listen(listener_.get(), 8), 0);
  EXPECT_EQ(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&any), &length), 0);
  port_ = ntohs(any.sin6_port);
  thread_ = std::thread([this] { serve(); });
}

EchoServer::~EchoServer() {
  ::shutdown(listener_.get(), SHUT_RDWR);
  thread_.join();
}

void EchoServer::serve() const {
  while (true) {
    const Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) return;
    std::vector<char> all;
    std::array<char, 65536> part;
    ssize_t got = 0;
    while ((got = ::recv(client.get(), part.data(), part.size(), 0)) > 0) {
      all.insert(all.end(), part.begin(), part.begin() + got);
    }
    for (size_t sent = 0; sent < all.size();) {
      const ssize_t put = ::send(client.get(), all.data() + sent, all.size() - sent, MSG_NOSIGNAL);
      if (put <= 0) break;
      sent += static_cast<size_t>(put);
    }
  }
}

void host(const std::string& command) {
  EXPECT_EQ(std::system(command.c_str()), 0) << command;  // NOLINT: it is ours
}

std::string name_of_card(AgentGuest& guest) {
  const std::string name = guest.output_of(
      "modprobe virtio_net; cd /sys/class/net; for i in 1 2 3 4 5 6 7 8 9; do "
      "ls | grep -v -x lo && exit 0; sleep 1; done; exit 1");
  return name.substr(0, name.find('\n'));
}

std::string set_up_card(AgentGuest& guest) {
  const std::string card = name_of_card(guest);
  guest.output_of("ip link set " + card + " up && ip addr add 10.77.0.2/24 dev " + card +
                  " && ip -6 addr add fd77::2/64 nodad dev " + card);
  return card;
}

void ping_host(AgentGuest& guest) {
  for (const char* to : {kHost4, kHost6}) {
    guest.output_of(std::string("ping -q -c 3 -i 0.2 -W 20 ") + to);
  }
}

void carry_file(AgentGuest& guest, const EchoServer& server, int mib) {
  guest.output_of("head -c " + std::to_string(mib) + "M /dev/urandom > /tmp/there");
  for (const std::string& to :
       {std::string("TCP4:") + kHost4, "TCP6:[" + std::string(kHost6) + "]"}) {
    guest.output_of("socat -t 120 - " + to + ":" + std::to_string(server.port()) +
                    " < /tmp/there > /tmp/back && [ \"$(sha256sum < /tmp/there)\" = "
                    "\"$(sha256sum < /tmp/back)\" ]");
  }
}

}  // namespace crosvm::test
