#include "platform/serial_output.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

class SinkOutput : public SerialOutput {
 public:
  Result<void> write(std::span<const std::byte>) override { return {}; }
};

class FdOutput : public SerialOutput {
 public:
  FdOutput(Fd fd, Fd stop, std::string object)
      : fd_(std::move(fd)), stop_(std::move(stop)), object_(std::move(object)) {
    struct stat status{};
    may_wait_ = ::fstat(fd_.get(), &status) != 0 || !S_ISREG(status.st_mode);
  }

  Result<void> write(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      if (may_wait_) TRY(wait_until_writable());
      // A writable pipe takes this much without waiting.
      const size_t length = std::min(bytes.size(), kChunkBytes);
      ssize_t put = ::write(fd_.get(), bytes.data(), length);
      if (put < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (put < 0) return fail(Error::from_errno("writing", object_));
      bytes = bytes.subspan(static_cast<size_t>(put));
    }
    return {};
  }

 private:
  static constexpr size_t kChunkBytes = 4096;

  Result<void> wait_until_writable() {
    pollfd waits[] = {{.fd = fd_.get(), .events = POLLOUT, .revents = 0},
                      {.fd = stop_.get(), .events = POLLIN, .revents = 0}};
    while (::poll(waits, std::size(waits), -1) < 0) {
      if (errno != EINTR) return fail(Error::from_errno("waiting for", object_));
    }
    if (waits[0].revents != 0) return {};
    return fail(Error(std::errc::operation_canceled, "writing " + object_ + ": the VM is ending"));
  }

  Fd fd_;
  Fd stop_;
  std::string object_;
  bool may_wait_ = true;
};

class SyslogOutput : public SerialOutput {
 public:
  explicit SyslogOutput(std::string name) : name_(std::move(name)) {}
  ~SyslogOutput() override {
    if (!line_.empty()) send();
  }

  Result<void> write(std::span<const std::byte> bytes) override {
    for (std::byte byte : bytes) {
      if (byte == std::byte{'\n'}) {
        send();
      } else if (byte != std::byte{'\r'}) {
        line_ += static_cast<char>(byte);
        if (line_.size() == kLineBytes) send();
      }
    }
    return {};
  }

 private:
  static constexpr size_t kLineBytes = 1024;  // a guest may never send a newline

  void send() {
    log::info("{}: {}", name_, line_);
    line_.clear();
  }

  std::string name_;
  std::string line_;
};

class TimestampOutput : public SerialOutput {
 public:
  TimestampOutput(std::unique_ptr<SerialOutput> next, std::function<timespec()> clock)
      : next_(std::move(next)), clock_(std::move(clock)) {}

  Result<void> write(std::span<const std::byte> bytes) override {
    std::vector<std::byte> text;
    for (std::byte byte : bytes) {
      if (at_line_start_) {
        const std::string stamp = now();
        for (char c : stamp) text.push_back(static_cast<std::byte>(c));
      }
      text.push_back(byte);
      at_line_start_ = byte == std::byte{'\n'};
    }
    return next_->write(text);
  }

 private:
  std::string now() const {
    const timespec time = clock_();
    tm utc{};
    ::gmtime_r(&time.tv_sec, &utc);
    return format_text("[ {:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:09} ]: ", utc.tm_year + 1900,
                       utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                       time.tv_nsec);
  }

  std::unique_ptr<SerialOutput> next_;
  std::function<timespec()> clock_;
  bool at_line_start_ = true;
};

}  // namespace

std::unique_ptr<SerialOutput> make_sink_output() { return std::make_unique<SinkOutput>(); }

Result<std::unique_ptr<SerialOutput>> make_fd_output(Fd fd, const Fd& stop, std::string object) {
  Fd own_stop = TRY(stop.duplicate());
  return std::make_unique<FdOutput>(std::move(fd), std::move(own_stop), std::move(object));
}

std::unique_ptr<SerialOutput> make_syslog_output(std::string name) {
  return std::make_unique<SyslogOutput>(std::move(name));
}

std::unique_ptr<SerialOutput> make_timestamp_output(std::unique_ptr<SerialOutput> next,
                                                    std::function<timespec()> clock) {
  return std::make_unique<TimestampOutput>(std::move(next), std::move(clock));
}

}  // namespace crosvm
