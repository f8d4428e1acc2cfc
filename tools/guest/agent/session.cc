#include "guest/agent/session.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>

namespace crosvm::agent {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// A frame whose rest does not come within this is given up.
constexpr int kPartialMs = 2000;
/// After a length that makes no sense, input is thrown away until it has been quiet for this long.
constexpr int kQuietMs = 100;
/// While so much waits for the host to read it, no more is taken from a command.
constexpr size_t kMaxOutgoing = size_t{256} << 10;

Json reply(uint64_t id) { return Json::object({{"id", id}}); }

Json error_reply(uint64_t id, const Error& error) {
  Json message = reply(id);
  message.set("error", error.what());
  return message;
}

Result<std::vector<std::string>> argv_of(const Json& request) {
  std::vector<std::string> argv;
  for (const Json& item : TRY(with_context((TRY(request.at("argv")))->items(), "argv")))
    argv.push_back(TRY(with_context(item.as_string(), "argv")));
  if (argv.empty()) return fail(Error::invalid("argv: names no program"));
  for (const std::string& word : argv)
    if (word.find('\0') != std::string::npos)
      return fail(Error::invalid("argv: a word holds a zero byte"));
  return argv;
}

/// -1 for none.
Result<int> timeout_of(const Json& request) {
  const Json* value = request.find("timeout_ms");
  if (value == nullptr) return -1;
  return static_cast<int>(TRY(with_context(value->as_uint(INT_MAX), "timeout_ms")));
}

}  // namespace

Session::Session(Fd port, std::function<void()> power_off)
    : port_(std::move(port)), power_off_(std::move(power_off)) {
  ::fcntl(port_.get(), F_SETFL, ::fcntl(port_.get(), F_GETFL) | O_NONBLOCK);
}

bool Session::serve() {
  send(Json::object({{"hello", Json::object({{"protocol", kProtocol}})}}));
  if (!flush()) return false;
  for (;;) {
    auto message = reader_.next();
    bool host_is_there = true;
    if (!message) {
      send(error_reply(0, message.error()));
      host_is_there = flush() && (message.error().code() != std::errc::message_size || recover());
    } else if (message->has_value()) {
      host_is_there = answer(**message) && flush();
    } else {
      host_is_there = receive();
    }
    if (!host_is_there) return true;
  }
}

/// Writes what the port takes now; false when the host has gone.
bool Session::send_pending() {
  while (!outgoing_.empty()) {
    ssize_t sent = ::write(port_.get(), outgoing_.data(), outgoing_.size());
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN;
    outgoing_.erase(0, static_cast<size_t>(sent));
  }
  return true;
}

bool Session::flush() {
  for (;;) {
    if (!send_pending()) return false;
    if (outgoing_.empty()) return true;
    pollfd wait = {port_.get(), POLLOUT, 0};
    ::poll(&wait, 1, -1);
    if (wait.revents & (POLLHUP | POLLERR)) return false;
  }
}

/// Waits for more bytes of the next frame.
bool Session::receive() {
  pollfd wait = {port_.get(), POLLIN, 0};
  int ready = ::poll(&wait, 1, reader_.partial() ? kPartialMs : -1);
  if (ready == 0) {
    reader_.clear();
    send(error_reply(0, Error(std::errc::timed_out, "the rest of a frame did not come")));
    return flush();
  }
  std::array<char, 16384> buffer;
  ssize_t got = ::read(port_.get(), buffer.data(), buffer.size());
  if (got > 0) reader_.add({buffer.data(), static_cast<size_t>(got)});
  return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

bool Session::recover() {
  for (;;) {
    pollfd wait = {port_.get(), POLLIN, 0};
    if (::poll(&wait, 1, kQuietMs) == 0) return true;
    if (!receive()) return false;
    reader_.clear();
  }
}

/// False when the host has gone.
bool Session::answer(const Json& request) {
  uint64_t id = 0;
  if (const Json* value = request.find("id")) id = value->as_uint().value_or(0);
  if (request.find("argv") != nullptr) return run(id, request);
  if (request.find("ping") != nullptr) {
    Json pong = reply(id);
    pong.set("pong", true);
    send(pong);
  } else if (request.find("power_off") != nullptr) {
    Json ending = reply(id);
    ending.set("status", 0);
    send(ending);
    flush();  // whether or not the host waits for the answer
    power_off_();
  } else {
    send(error_reply(id, Error::invalid("a request has argv, ping or power_off")));
  }
  return true;
}

bool Session::run(uint64_t id, const Json& request) {
  auto start = [&]() -> Result<std::pair<Command, int>> {
    auto argv = TRY(argv_of(request));
    int timeout_ms = TRY(timeout_of(request));
    std::string input = TRY(get_bytes(request, "stdin")).value_or("");
    return std::pair(TRY(Command::start(argv, std::move(input))), timeout_ms);
  };
  auto started = start();
  if (!started) {
    send(error_reply(id, started.error()));
    return true;
  }
  auto& [command, timeout_ms] = *started;
  auto deadline = Clock::now() + milliseconds(timeout_ms);
  bool timed_out = false;
  bool ended = false;
  while (!ended) {
    int left = -1;
    if (timeout_ms >= 0 && !timed_out) {
      auto rest = std::chrono::ceil<milliseconds>(deadline - Clock::now());
      left = static_cast<int>(std::max<int64_t>(0, rest.count()));
    }
    if (left == 0) {
      timed_out = true;
      command.kill_all();
      left = -1;
    }
    if (!pump(id, command, left, ended)) return false;
  }
  drain(id, command);
  Ending ending = command.reap();
  Json message = reply(id);
  message.set(ending.signal != 0 ? "signal" : "status",
              ending.signal != 0 ? ending.signal : ending.status);
  if (timed_out) message.set("timed_out", true);
  send(message);
  return true;
}

/// Waits for something to happen and moves bytes; `ended` tells that the process has. False when
/// the host has gone.
bool Session::pump(uint64_t id, Command& command, int timeout_ms, bool& ended) {
  // poll overlooks the descriptor -1 of what is closed or has to wait.
  bool room = outgoing_.size() < kMaxOutgoing;
  std::array<pollfd, 5> waits = {{
      {port_.get(), static_cast<short>(outgoing_.empty() ? 0 : POLLOUT), 0},
      {command.process().get(), POLLIN, 0},
      {command.input().get(), POLLOUT, 0},
      {room ? command.output().get() : -1, POLLIN, 0},
      {room ? command.errors().get() : -1, POLLIN, 0},
  }};
  ::poll(waits.data(), waits.size(), timeout_ms);
  if (waits[0].revents & (POLLHUP | POLLERR)) return false;
  if (waits[2].revents != 0) command.write_input();
  if (waits[3].revents != 0) send_output(id, "stdout", command.read_output());
  if (waits[4].revents != 0) send_output(id, "stderr", command.read_errors());
  ended = waits[1].revents != 0;
  return send_pending();
}

/// What the process had written before its end, and nothing that others write who still hold its
/// pipes.
void Session::drain(uint64_t id, Command& command) {
  auto rest = [](const Fd& pipe) {
    int bytes = 0;
    return pipe && ::ioctl(pipe.get(), FIONREAD, &bytes) == 0 ? bytes : 0;
  };
  for (int left = rest(command.output()); left > 0;) {
    std::string bytes = command.read_output();
    if (bytes.empty()) break;
    left -= static_cast<int>(bytes.size());
    send_output(id, "stdout", bytes);
  }
  for (int left = rest(command.errors()); left > 0;) {
    std::string bytes = command.read_errors();
    if (bytes.empty()) break;
    left -= static_cast<int>(bytes.size());
    send_output(id, "stderr", bytes);
  }
}

void Session::send_output(uint64_t id, std::string_view name, const std::string& bytes) {
  if (bytes.empty()) return;
  Json message = reply(id);
  set_bytes(message, name, bytes);
  send(message);
}

}  // namespace crosvm::agent
