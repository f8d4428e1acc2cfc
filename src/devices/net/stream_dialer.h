#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "base/unix_address.h"

namespace crosvm {

/// A connection to the stream socket at `path`, where `passt` listens: the command that makes it do
/// so, but for the path. Errors: the errno of connect, with what helps.
Result<Fd> connect_stream(const std::string& path, std::string_view passt = "passt --socket");

/// Connects to one stream socket whenever it is asked to, again and again until somebody listens
/// there.
class StreamDialer {
 public:
  static constexpr std::chrono::milliseconds kPause{500};
  /// Where connections live no longer than kShortLife, each pause is twice the last one, up to
  /// this.
  static constexpr std::chrono::milliseconds kMostPause{32'000};
  static constexpr std::chrono::seconds kShortLife{2};
  using Connected = std::function<void(Fd socket)>;

  /// `connected` is called on the loop, which outlives this. Errors: a path that is none.
  static Result<std::unique_ptr<StreamDialer>> create(EventLoop& loop, const std::string& path,
                                                      Connected connected);
  ~StreamDialer();
  StreamDialer(const StreamDialer&) = delete;
  StreamDialer& operator=(const StreamDialer&) = delete;

  /// `connected` will be called once, however often this was. On the loop.
  void dial();

 private:
  using Clock = std::chrono::steady_clock;
  StreamDialer(EventLoop& loop, const std::string& path, UnixAddress address, Connected connected);
  void connect();
  void tell(int error);

  EventLoop& loop_;
  const std::string path_;
  const UnixAddress address_;  // made at once: later this process may open nothing
  const Connected connected_;
  EventLoop::TimerId timer_ = 0;
  Clock::time_point connected_at_{};
  std::chrono::milliseconds pause_ = kPause;
  int told_ = 0;  // why the last connection was not made
};

}  // namespace crosvm
