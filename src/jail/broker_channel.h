#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "base/file_broker.h"
#include "base/packet_socket.h"

namespace crosvm {

/// The broker as a worker has it: it asks on its control socket, and waits.
class ChannelBroker : public FileBroker {
 public:
  /// The socket outlives it, and blocks.
  explicit ChannelBroker(PacketSocket& channel) : channel_(channel) {}
  /// Errors: what the broker said, and those of the socket.
  Result<File> open(const Request& request) override;

 private:
  PacketSocket& channel_;
};

/// The other end: answers what one worker asks. A worker that takes the place of another gets the
/// files that the first one asked for, and no others, as nothing can be opened by then.
class BrokerDesk {
 public:
  /// `broker`, if there is one, opens; `remembers`: for a worker that may be replaced.
  BrokerDesk(std::unique_ptr<FileBroker> broker, bool remembers)
      : broker_(std::move(broker)), remembers_(remembers) {}

  /// Whether a worker's packet is for here.
  static bool concerns(const Packet& packet);
  /// The packet to send back.
  Packet answer(const Packet& packet);
  /// From now on nothing is opened.
  void close() { broker_.reset(); }

 private:
  Result<FileBroker::File> open(const FileBroker::Request& request);
  struct Remembered {
    FileBroker::Request request;
    FileBroker::File file;
  };
  std::unique_ptr<FileBroker> broker_;
  bool remembers_;
  std::vector<Remembered> files_;
};

}  // namespace crosvm
