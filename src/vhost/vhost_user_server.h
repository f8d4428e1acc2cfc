#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "virtio/device_host.h"

namespace crosvm {

/// A device served to a vhost-user front-end: the back-end of the protocol, for any VirtioDevice.
///
/// Offers MQ, REPLY_ACK, BACKEND_REQ, CONFIG, BACKEND_SEND_FD, INFLIGHT_SHMFD, RESET_DEVICE,
/// CONFIGURE_MEM_SLOTS and STATUS. A request that is unknown or cannot be answered is refused, and
/// the connection lives. A ring starts when all is there that it needs ("Ring states"): it looks at
/// its elements at once instead of waiting for a kick. Messages are taken in order; those that stop
/// a ring do not keep later ones waiting, though their answers.
///
/// A device that needs a reset says so by VIRTIO_CONFIG_S_NEEDS_RESET in GET_STATUS, tells of it as
/// of a change of its configuration, and signals the error descriptor of every ring.
///
/// All calls are made on the loop's thread.
class VhostUserServer {
 public:
  /// The front-end has gone, and why: not_connected when it just closed the connection. Called on
  /// the loop, once for each `serve`. May call `serve`, must not destroy the server.
  using Gone = std::function<void(const Error& why)>;

  /// `loop` outlives the server; `name` names the device in logs. Errors: those of `make`.
  static Result<std::unique_ptr<VhostUserServer>> create(EventLoop& loop, const std::string& name,
                                                         const DeviceHost::MakeDevice& make,
                                                         Gone gone);
  /// Turns the loop until nothing is in flight; so never in a callback of the loop.
  ~VhostUserServer();

  /// The device as a front-end sees it.
  const DeviceInfo& info() const;

  /// As of DeviceHost.
  void command(DeviceCommand command, CommandDone done);

  /// Serves the front-end at the other end of a stream socket, once the rings of the one before
  /// have stopped and the device has been reset. Only when there is none, or it has gone. Errors:
  /// the descriptor cannot be watched.
  Result<void> serve(Fd socket);

 private:
  struct State;
  explicit VhostUserServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
