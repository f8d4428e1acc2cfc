#pragma once

#include <memory>

#include "jail/broker_channel.h"

namespace crosvm {

/// A process that opens what files name (FileBroker), for one that may not do so itself any more.
/// It ends when this does.
class BrokerProcess {
 public:
  /// Before the calling process has threads. Errors: those of fork and of making a socket.
  static Result<std::unique_ptr<BrokerProcess>> start(std::unique_ptr<FileBroker> broker);

  FileBroker& broker() { return broker_; }

 private:
  explicit BrokerProcess(Fd channel);
  PacketSocket channel_;
  ChannelBroker broker_{channel_};
};

}  // namespace crosvm
