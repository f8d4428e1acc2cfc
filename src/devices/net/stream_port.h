#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "devices/net/net_port.h"

namespace crosvm {

/// Frames on a connected stream socket, each behind its length in four bytes, big-endian: as passt
/// takes and gives them, and others who serve QEMU's `-netdev stream`. No offloads.
///
/// When the other side closes, or says what no frame is, the link is down until `connect` gives the
/// port another socket.
class StreamPort : public NetPort {
 public:
  /// `socket` is non-blocking; `name` names the other side in logs. The loop outlives this.
  StreamPort(EventLoop& loop, Fd socket, std::string name);
  ~StreamPort() override;

  /// Goes on with another connection. What was on its way on the old one is lost.
  void connect(Fd socket);
  /// To be called, on the loop, when the connection has gone.
  void on_lost(std::function<void()> lost) { lost_ = std::move(lost); }
  bool connected() const { return static_cast<bool>(socket_); }

  void begin(Events events) override;
  uint64_t offloads() const override { return 0; }
  void set_guest_offloads(uint64_t) override {}
  void listen(bool on) override;
  std::optional<size_t> receive(const ChainBuffers& room) override;
  Sent send(const NetHeader& header, const ChainBuffers& packet) override;

 private:
  /// The length of the frame that is whole in `input_`, if one is; errors: of no frame.
  std::optional<size_t> whole_frame();
  void fill_input();
  void lose(const std::string& why);
  void ready(uint32_t events);
  void flush();
  void update_watch();
  void wake();

  EventLoop& loop_;
  Fd socket_;
  const std::string name_;
  Events events_;
  std::function<void()> lost_;
  bool begun_ = false;
  bool listening_ = false;
  bool waking_ = false;
  bool sending_waits_ = false;
  EventLoop::WatchId watch_ = 0;  // 0: none
  uint32_t watched_ = 0;
  std::vector<std::byte> input_;  // read and not yet received: [first_, last_)
  size_t first_ = 0;
  size_t last_ = 0;
  std::vector<std::byte> output_;  // a frame of which a part has been sent
  size_t sent_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace crosvm
