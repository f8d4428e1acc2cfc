#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <string>
#include <vector>

#include "base/fd.h"

namespace crosvm {

/// The host's side of a tap: a packet socket that sends frames into it. What the system refuses
/// ends the benchmark.
class NetWire {
 public:
  static constexpr uint16_t kFlows = 16;

  explicit NetWire(const std::string& tap);

  /// Frames of this size from now on, of kFlows flows in turns.
  void set_frames(size_t bytes);
  /// Sends up to `count`. Returns how many the kernel took.
  size_t send(size_t count);

 private:
  Fd socket_;
  std::vector<std::vector<std::byte>> frames_;
  std::vector<iovec> pieces_;
  std::vector<mmsghdr> messages_;
  size_t next_ = 0;
};

/// Sees the frames that come out of a tap, as long as this lives.
class NetListener {
 public:
  explicit NetListener(const std::string& tap);
  /// Waits for a frame. Returns whether there was one within `timeout_ms`.
  bool next(int timeout_ms) const;

 private:
  Fd socket_;
};

/// Takes queues of a tap that there is, as many as `queues`. Errors end the benchmark.
std::vector<Fd> open_bare_tap(const std::string& tap, size_t queues);

}  // namespace crosvm
