#pragma once

#include <string>
#include <thread>

#include "agent_guest.h"
#include "base/fd.h"

namespace crosvm::test {

// The host's addresses on the network of a guest's card; the guest has 10.77.0.2 and fd77::2.
inline constexpr const char* kHost4 = "10.77.0.1";
inline constexpr const char* kHost6 = "fd77::1";

/// A server of the host at a port of its own: keeps what a client sends until that has no more, and
/// sends it all back.
class EchoServer {
 public:
  EchoServer();
  ~EchoServer();
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;
  int port() const { return port_; }

 private:
  void serve() const;

  Fd listener_;
  int port_ = 0;
  std::thread thread_;
};

/// Runs a command of the host, which must succeed.
void host(const std::string& command);

/// The name of the guest's card, whose driver is loaded.
std::string name_of_card(AgentGuest& guest);

/// The name of the guest's card, which is up and has its addresses.
std::string set_up_card(AgentGuest& guest);

/// The host answers by both protocols.
void ping_host(AgentGuest& guest);

/// A file of so many MiB goes to the host and comes back, by both protocols, and is the same.
void carry_file(AgentGuest& guest, const EchoServer& server, int mib);

}  // namespace crosvm::test
