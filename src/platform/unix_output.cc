#include "platform/unix_output.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <deque>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/format.h"
#include "base/log.h"
#include "base/unix_address.h"

namespace crosvm {
namespace {

bool nobody_there(std::errc code) {
  return code == std::errc::no_such_file_or_directory || code == std::errc::connection_refused;
}

/// What helps when no stream is to be had.
std::string_view fix_for(std::errc code) {
  if (nobody_there(code)) return "; start the program that listens there first";
  switch (code) {
    case std::errc::permission_denied:
      return "; make it writable for the user who starts crosvm";
    case std::errc::wrong_protocol_type:
      return "; it is no stream socket: use type=unix";
    case std::errc::resource_unavailable_try_again:
      return "; its program has accepted nobody for five seconds: see why";
    default:
      return "";
  }
}

class DatagramState : public std::enable_shared_from_this<DatagramState> {
 public:
  DatagramState(EventLoop& loop, std::string path) : loop_(loop), path_(std::move(path)) {}

  /// Errors: those that waiting cannot cure.
  Result<void> begin() {
    socket_ = Fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_) return fail(Error::from_errno("creating", "a datagram socket"));
    // Now: the directory of a long path is opened, which a VM that runs is not allowed to.
    address_.emplace(TRY(UnixAddress::of_long(path_)));
    auto connected = connect();
    if (!connected && !nobody_there(connected.error().code())) return connected;
    connected_ = direct_ = connected.has_value();
    if (!connected) {
      log::info("serial output waits for a socket at {}", path_);
      loop_.post([weak = weak_from_this()] { retry_later(weak); });
    }
    return {};
  }

  void send_line(std::span<const std::byte> line) {
    std::lock_guard guard(mutex_);
    if (direct_) {
      send_now(line);
    } else if (!given_up_ && waiting_bytes_ + line.size() <= kWaitingBytes &&
               waiting_.size() < kWaitingLines) {
      waiting_.emplace_back(line.begin(), line.end());
      waiting_bytes_ += line.size();
    } else {
      lost(connected_ ? "the receiver is slow" : "nothing listens");
    }
  }

 private:
  static constexpr size_t kWaitingBytes = 64 * 1024;
  static constexpr size_t kWaitingLines = 4096;  // empty lines take memory too
  static constexpr int kSlowReceiverMs = 100;

  Result<void> connect() {
    if (::connect(socket_.get(), address_->get(), address_->size()) != 0) {
      return fail(Error::from_errno("connecting to socket", path_));
    }
    return {};
  }

  static void retry_later(const std::weak_ptr<DatagramState>& weak) {
    auto state = weak.lock();
    if (!state) return;
    state->loop_.after(kUnixRetryInterval, [weak] {
      if (auto later = weak.lock()) later->retry();
    });
  }

  void retry() {
    std::lock_guard guard(mutex_);
    if (!connected_) {
      auto connected = connect();
      connected_ = connected.has_value();
      if (!connected && !nobody_there(connected.error().code())) {
        given_up_ = true;
        waiting_.clear();
        log::error("serial output is lost: {}", connected.error().what());
        return;
      }
    }
    if (connected_) send_waiting();
    if (!direct_) retry_later(weak_from_this());
  }

  /// On the loop, so without waiting: a receiver's queue may take ten lines at a time.
  void send_waiting() {
    while (!waiting_.empty()) {
      const int error_number = try_send(waiting_.front());
      if (error_number == EAGAIN) return;
      if (error_number != 0) report_sending(error_number);
      waiting_bytes_ -= waiting_.front().size();
      waiting_.pop_front();
    }
    direct_ = true;
  }

  /// Tries twice; before the second time a restarted receiver is looked for.
  void send_now(std::span<const std::byte> line) {
    int error_number = try_send(line);
    if (error_number != 0 && error_number != EAGAIN) {
      if (connect()) error_number = try_send(line);
    } else if (error_number == EAGAIN && !losing_ && wait_for_receiver()) {
      error_number = try_send(line);
    }
    if (error_number == 0) {
      losing_ = false;
    } else {
      report_sending(error_number);
    }
  }

  void report_sending(int error_number) {
    lost(Error::from_errno("sending to socket", path_, error_number).what());
  }

  int try_send(std::span<const std::byte> line) {
    const ssize_t sent =
        ::send(socket_.get(), line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? errno : 0;
  }

  bool wait_for_receiver() {
    pollfd wait{.fd = socket_.get(), .events = POLLOUT, .revents = 0};
    return ::poll(&wait, 1, kSlowReceiverMs) > 0;
  }

  void lost(const std::string& why) {
    if (!losing_) log::error("serial output to {} loses lines: {}", path_, why);
    losing_ = true;  // until a line gets through: no more waiting, no more records
  }

  EventLoop& loop_;
  const std::string path_;
  std::mutex mutex_;
  std::optional<UnixAddress> address_;  // from `begin` on
  Fd socket_;
  bool connected_ = false;
  bool direct_ = false;  // nothing waits any more
  bool given_up_ = false;
  bool losing_ = false;
  std::deque<std::vector<std::byte>> waiting_;
  size_t waiting_bytes_ = 0;
};

class DatagramOutput : public SerialOutput {
 public:
  explicit DatagramOutput(std::shared_ptr<DatagramState> state) : state_(std::move(state)) {}

  Result<void> write(std::span<const std::byte> bytes) override {
    for (std::byte byte : bytes) {
      if (byte == std::byte{'\n'}) {
        if (!line_.empty() && line_.back() == std::byte{'\r'}) line_.pop_back();
        send();
        continue;
      }
      line_.push_back(byte);
      if (line_.size() == kLineBytes) send();
    }
    return {};
  }

 private:
  static constexpr size_t kLineBytes = 1024;

  void send() {
    state_->send_line(line_);
    line_.clear();
  }

  std::shared_ptr<DatagramState> state_;
  std::vector<std::byte> line_;
};

}  // namespace

Result<std::unique_ptr<SerialOutput>> make_unix_datagram_output(EventLoop& loop, std::string path) {
  auto state = std::make_shared<DatagramState>(loop, std::move(path));
  TRY(state->begin());
  return std::make_unique<DatagramOutput>(std::move(state));
}

Result<Fd> connect_unix_stream(const std::string& path) {
  UnixAddress address = TRY(UnixAddress::of_long(path));
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail(Error::from_errno("creating", "a stream socket"));
  const timeval patience{.tv_sec = 5, .tv_usec = 0};  // for a listener whose backlog is full
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (::connect(socket.get(), address.get(), address.size()) != 0) {
    Error error = Error::from_errno("connecting to socket", path);
    return fail(Error(error.code(), error.what() + std::string(fix_for(error.code()))));
  }
  if (::fcntl(socket.get(), F_SETFL, O_NONBLOCK) != 0) {
    return fail(Error::from_errno("preparing socket", path));
  }
  return socket;
}

}  // namespace crosvm
