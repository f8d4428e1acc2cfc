#include "platform/serial_input.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "platform/terminal.h"

namespace crosvm {

/// Everything here runs on the loop's thread but for `waits_for_room_` and `started_`.
class SerialInput::State : public std::enable_shared_from_this<SerialInput::State> {
 public:
  State(EventLoop& loop, Fd fd, std::string object, std::function<void()> leave)
      : loop_(loop), fd_(std::move(fd)), object_(std::move(object)), leave_(std::move(leave)) {
    if (leave_) escape_.emplace();
  }

  bool is_terminal() const { return escape_.has_value(); }
  bool first_start() { return !started_.exchange(true); }
  bool take_wait_for_room() { return waits_for_room_.exchange(false); }

  void post_pump(SerialReceiver* receiver) {
    loop_.post([weak = weak_from_this(), receiver] {
      if (auto state = weak.lock()) {
        if (receiver != nullptr) state->receiver_ = receiver;
        state->pump();
      }
    });
  }

  void close() {
    stop_watching();
    ended_ = true;
    receiver_ = nullptr;
  }

 private:
  static constexpr size_t kTerminalBytes = 4096;  // what a terminal's own line discipline keeps
  static constexpr size_t kReadBytes = 256;

  /// Moves bytes as far as they go, then waits for whichever is missing: bytes or room.
  void pump() {
    deliver();
    if (ended_) return;
    if (is_terminal() || (held_.empty() && has_room())) {
      watch();
    } else {
      stop_watching();
    }
  }

  size_t room() { return receiver_ == nullptr ? 0 : receiver_->room(); }

  /// When this returns false, the device's next `room_available` brings us back to `pump`.
  bool has_room() {
    if (room() > 0) return true;
    if (receiver_ == nullptr) return false;
    waits_for_room_.store(true);
    if (room() == 0) return false;
    waits_for_room_.store(false);  // room made before the flag was set went unnoticed
    return true;
  }

  void deliver() {
    while (!held_.empty() && has_room()) {
      const size_t count = std::min(room(), held_.size());
      receiver_->receive(std::span(held_).first(count));
      held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(count));
    }
  }

  void watch() {
    if (watch_id_ != 0) return;
    if (always_ready_) {
      read_file();
      return;
    }
    auto watched = loop_.watch(fd_, EPOLLIN, [this](uint32_t) { on_ready(); });
    if (watched) {
      watch_id_ = *watched;
    } else if (watched.error().code() == std::errc::operation_not_permitted) {
      always_ready_ = true;  // a file: epoll takes only what can wait
      read_file();
    } else {
      end(watched.error().what());
    }
  }

  void stop_watching() {
    if (watch_id_ != 0) loop_.unwatch(std::exchange(watch_id_, 0));
  }

  void on_ready() {
    read_some();
    pump();
  }

  /// One read at a time: a guest that drains as fast as we read must not keep the loop here.
  void read_file() {
    read_some();
    deliver();
    if (!ended_ && has_room()) post_pump(nullptr);
  }

  void read_some() {
    std::array<std::byte, kReadBytes> bytes;
    const size_t limit = is_terminal() ? bytes.size() : std::min(room(), bytes.size());
    if (limit == 0) return;
    const ssize_t got = ::read(fd_.get(), bytes.data(), limit);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (got < 0) return end(Error::from_errno("reading", object_).what());
    if (got == 0) return end("");
    const auto read = std::span(bytes).first(static_cast<size_t>(got));
    if (!escape_) {
      held_.insert(held_.end(), read.begin(), read.end());
      return;
    }
    const bool leaves = escape_->filter(read, held_);
    if (held_.size() > kTerminalBytes) held_.resize(kTerminalBytes);
    if (leaves) leave_();
  }

  void end(const std::string& error) {
    if (!error.empty()) log::error("serial input ends: {}", error);
    stop_watching();
    ended_ = true;
  }

  EventLoop& loop_;
  Fd fd_;
  std::string object_;
  std::function<void()> leave_;
  std::optional<EscapeFilter> escape_;
  SerialReceiver* receiver_ = nullptr;
  EventLoop::WatchId watch_id_ = 0;
  std::vector<std::byte> held_;  // read but not yet taken by the device
  bool always_ready_ = false;
  bool ended_ = false;  // nothing more is read; what is held is still delivered
  std::atomic<bool> started_ = false;
  std::atomic<bool> waits_for_room_ = false;
};

SerialInput::SerialInput(EventLoop& loop, Fd fd, std::string object, std::function<void()> leave)
    : state_(std::make_shared<State>(loop, std::move(fd), std::move(object), std::move(leave))) {
  if (state_->is_terminal()) state_->post_pump(nullptr);
}

SerialInput::~SerialInput() { state_->close(); }

void SerialInput::start(SerialReceiver& receiver) {
  if (state_->first_start()) state_->post_pump(&receiver);
}

void SerialInput::room_available() {
  if (state_->take_wait_for_room()) state_->post_pump(nullptr);
}

}  // namespace crosvm
