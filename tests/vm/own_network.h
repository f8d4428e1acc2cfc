#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "agent_guest.h"
#include "base/fd.h"
#include "vm_process.h"

// A network that a test makes, servers in it, and what is seen of it from the host: for networks
// that need no privilege. The VM that the test starts is in it, and nothing else.

namespace crosvm::test {

/// Says on each connection what it is told, on each datagram likewise; both families, all
/// addresses.
class EchoServers {
 public:
  explicit EchoServers(uint16_t port);
  ~EchoServers();
  EchoServers(const EchoServers&) = delete;
  EchoServers& operator=(const EchoServers&) = delete;
  int connections() const { return connections_; }

 private:
  void serve_streams();
  void serve_datagrams();

  Fd listener_;
  Fd datagrams_;
  std::atomic<int> connections_ = 0;
  std::thread streams_;
  std::thread packets_;
};

/// Answers every question for an address with 192.0.2.1.
class NameServer {
 public:
  NameServer();
  ~NameServer();
  NameServer(const NameServer&) = delete;
  NameServer& operator=(const NameServer&) = delete;

 private:
  void serve();

  Fd socket_;
  std::thread thread_;
};

/// The kernel's tables of the sockets in this thread's network.
std::string listening();
/// How many of them listen.
size_t listeners();
/// Whether a Unix socket of that path listens there, which it may do some time after it is bound.
bool listens_at(const std::string& path);
/// Processes that run the program of that name, wherever it is.
size_t processes_of(std::string_view program);
/// Waits for what comes about soon.
bool comes_about(const std::function<bool()>& fact);

/// What a server at that port of 127.0.0.1 says to `hello`, of `type` SOCK_STREAM or SOCK_DGRAM.
std::string answer_of(uint16_t port, int type);

class OwnNetworkTest : public testing::Test {
 protected:
  /// Runs the test on a thread whose network is its own: 192.0.2.1, 192.0.2.2 and 2001:db8::1 are
  /// there, and names are asked of the first.
  void in_own_network(const std::function<void()>& test);
  /// A guest with that `--net`.
  static GuestBoot boot(const std::string& net);
  /// What it says in bash, which opens connections by itself; without single quotes.
  static std::string in_bash(AgentGuest& guest, const std::string& script);
  /// It says hello to the EchoServers at port 7000 of that address or name, by both protocols.
  static void talk_to(AgentGuest& guest, const std::string& address);
  /// The shell condition comes about in the guest.
  static void wait_until(AgentGuest& guest, const std::string& condition);

  ScratchDirectory scratch_;
};

}  // namespace crosvm::test
