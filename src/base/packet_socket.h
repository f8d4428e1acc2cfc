#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// One message: its bytes, and the descriptors that travel with it.
struct Packet {
  std::string text;
  std::vector<Fd> fds;
};

/// What one packet may hold, to bound what a peer can make us take.
struct PacketLimits {
  size_t bytes = 0;
  size_t fds = 0;  ///< at most 253, the kernel's own limit
};

/// One end of a sequenced-packet Unix socket: one message per packet.
class PacketSocket {
 public:
  PacketSocket(Fd connected, PacketLimits limits) : fd_(std::move(connected)), limits_(limits) {}

  /// Takes one packet, waiting for it where the socket blocks; nullopt when the peer has closed.
  /// Errors: message_size and bad_message for one with more bytes or descriptors than the limits
  /// (it is thrown away whole, the connection goes on); resource_unavailable_try_again when there
  /// is none; else the errno of recvmsg.
  Result<std::optional<Packet>> receive();

  /// Sends one packet, which must have no more descriptors than the limits. Errors:
  /// resource_unavailable_try_again when a non-blocking socket is full, message_size when the
  /// packet is above the socket's own limit, else the errno of sendmsg.
  Result<void> send(const Packet& packet);

  const Fd& fd() const { return fd_; }

 private:
  Fd fd_;
  PacketLimits limits_;
};

}  // namespace crosvm
