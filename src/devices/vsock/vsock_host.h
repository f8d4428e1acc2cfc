#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/packet_socket.h"
#include "base/result.h"
#include "base/socket_file.h"
#include "base/unix_address.h"
#include "devices/vsock/vsock_config.h"
#include "devices/vsock/vsock_device.h"

namespace crosvm {

/// What a socket device needs of the host and may not have itself: makes the sockets that it
/// listens on, and connects the sockets that it asks for, each by its place in the configuration.
/// It lives outside of the device's jail, as long as the device.
class VsockHost {
 public:
  struct Opened {
    std::unique_ptr<VsockHost> host;
    VsockResources resources;  ///< for a device of the same configuration
  };
  /// Listens at every path of `config.listen`. Errors: those of SocketFile, and of making a socket
  /// pair, naming the path.
  static Result<Opened> open(const VsockConfig& config);
  /// Removes the sockets' files, if they are still ours.
  ~VsockHost();
  VsockHost(const VsockHost&) = delete;
  VsockHost& operator=(const VsockHost&) = delete;

  /// Answers the device on `loop`, which outlives this. On the loop's thread.
  Result<void> serve(EventLoop& loop);
  /// Answers the device, until it is gone.
  void serve_until_end();

  /// The files that it has made: absolute paths.
  std::vector<std::string> socket_files() const;
  /// Where it hears the device: all that it needs to have open.
  const Fd& channel() const { return channel_.fd(); }
  void remove_files() { files_.clear(); }
  /// Another process has a copy of this (fork): it answers the device, and has the files.
  void leave_files();

 private:
  struct Target {
    UnixAddress address;
    int type = 0;
  };
  VsockHost() = default;
  Result<void> check_new(const std::string& path) const;
  /// One question. Returns whether there may be more.
  bool answer_one();
  void hang_up();

  EventLoop* loop_ = nullptr;
  EventLoop::WatchId watch_ = 0;
  std::vector<SocketFile> files_;
  std::vector<Target> targets_;  // of config.connect
  PacketSocket channel_{Fd(), {}};
};

}  // namespace crosvm
