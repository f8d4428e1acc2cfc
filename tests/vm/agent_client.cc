#include "agent_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/format.h"
#include "base/unix_address.h"

namespace crosvm::test {
namespace {

using std::chrono::milliseconds;

/// An agent that says hello before our end listens is asked again after this.
constexpr milliseconds kAskAgain{1000};
/// For the last frames of a command whose time is up, in a slow guest.
constexpr milliseconds kGrace{30'000};
/// Of one poll: a deadline may be as far away as never.
constexpr milliseconds kLongestWait{60'000};
/// What `run` keeps of a guest's output at most, in bytes.
constexpr size_t kMaxKept = size_t{64} << 20;

Error lost() {
  return Error(std::errc::connection_reset,
               "the guest agent's connection ended: the guest or the VM did");
}

/// The end of a command, or nothing while it runs on.
Result<std::optional<AgentResult>> ending_of(const Json& message) {
  if (const Json* error = message.find("error"))
    return fail(Error::invalid("the guest agent: " + TRY(error->as_string())));
  AgentResult result;
  if (const Json* signal = message.find("signal")) {
    result.signal = static_cast<int>(TRY(signal->as_uint(127)));
    result.status = 128 + result.signal;
  } else if (const Json* status = message.find("status")) {
    result.status = static_cast<int>(TRY(status->as_uint(255)));
  } else {
    return std::nullopt;
  }
  if (const Json* timed_out = message.find("timed_out"))
    result.timed_out = TRY(timed_out->as_bool());
  return result;
}

}  // namespace

Result<AgentClient> AgentClient::listen(const std::string& path) {
  UnixAddress address = TRY(UnixAddress::of_long(path));
  AgentClient client;
  client.listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!client.listener_) return fail(Error::from_errno("creating", "a socket"));
  if (::bind(client.listener_.get(), address.get(), address.size()) != 0)
    return fail(Error::from_errno("binding", path));
  client.path_ = path;
  if (::listen(client.listener_.get(), 1) != 0)
    return fail(Error::from_errno("listening at", path));
  return client;
}

AgentClient AgentClient::on(Fd connection) {
  AgentClient client;
  client.connection_ = std::move(connection);
  return client;
}

AgentClient::AgentClient(AgentClient&& other) noexcept
    : path_(std::exchange(other.path_, "")),
      listener_(std::move(other.listener_)),
      connection_(std::move(other.connection_)),
      reader_(std::move(other.reader_)),
      ready_(other.ready_),
      last_id_(other.last_id_) {}

AgentClient::~AgentClient() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

std::string AgentClient::serial_option() const {
  return "type=unix-stream,hardware=virtio-console,name=agent,path=" + path_ +
         ",input-unix-stream,num=2";
}

Result<void> AgentClient::wait_readable(const Fd& fd, Clock::time_point deadline) {
  for (;;) {
    auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    pollfd wait = {fd.get(), POLLIN, 0};
    auto wait_ms = std::clamp<int64_t>(left.count(), 0, kLongestWait.count());
    int ready = ::poll(&wait, 1, static_cast<int>(wait_ms));
    if (ready > 0) return {};
    if (ready == 0 && left.count() <= 0)
      return fail(Error(std::errc::timed_out, "the guest agent did not answer in time"));
  }
}

Result<void> AgentClient::accept(Clock::time_point deadline) {
  if (connection_) return {};
  TRY(wait_readable(listener_, deadline));
  connection_ = Fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!connection_) return fail(Error::from_errno("accepting a connection at", path_));
  return {};
}

Result<Json> AgentClient::receive_until(Clock::time_point deadline) {
  for (;;) {
    if (auto message = TRY(reader_.next())) return *std::move(message);
    TRY(wait_readable(connection_, deadline));
    std::array<char, 65536> buffer;
    ssize_t got = ::recv(connection_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return fail(lost());
    reader_.add({buffer.data(), static_cast<size_t>(got)});
  }
}

Result<void> AgentClient::send_raw(std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t sent = ::send(connection_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return fail(lost());
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return {};
}

Result<void> AgentClient::wait_ready(Milliseconds timeout) {
  if (ready_) return {};
  auto deadline = Clock::now() + timeout;
  TRY(accept(deadline));
  while (!ready_) {
    auto message = receive_until(std::min(deadline, Clock::now() + kAskAgain));
    if (message) {
      // Not our id: the pong of an earlier question.
      ready_ = message->find("hello") != nullptr || message->find("pong") != nullptr;
    } else if (message.error().code() != std::errc::timed_out || Clock::now() >= deadline) {
      return fail(std::move(message).error());
    } else {
      TRY(send_raw(agent::encode_frame(Json::object({{"id", 0}, {"ping", true}}))));
    }
  }
  return {};
}

Result<AgentResult> AgentClient::run(const std::vector<std::string>& argv,
                                     const AgentOptions& options) {
  std::string output;
  std::string errors;
  AgentResult result = TRY(stream(argv, options, [&](bool is_error, std::string_view bytes) {
    std::string& kept = is_error ? errors : output;
    kept += bytes.substr(0, kMaxKept - kept.size());
  }));
  result.output = std::move(output);
  result.errors = std::move(errors);
  return result;
}

Result<AgentResult> AgentClient::stream(const std::vector<std::string>& argv,
                                        const AgentOptions& options, const Sink& sink) {
  TRY(wait_ready(kGrace * 4));
  Json words = Json::array();
  for (const std::string& word : argv) words.push_back(word);
  Json request = Json::object({{"id", ++last_id_}, {"argv", std::move(words)}});
  agent::set_bytes(request, "stdin", options.input);
  if (options.timeout.count() > 0) request.set("timeout_ms", options.timeout.count());
  if (request.dump().size() > agent::kMaxFrame)
    return fail(Error::invalid("the guest's command is too long"));
  TRY(send_raw(agent::encode_frame(request)));

  auto deadline = options.timeout.count() > 0 ? Clock::now() + options.timeout + kGrace
                                              : Clock::time_point::max();
  for (;;) {
    Json message = TRY(receive_until(deadline));
    const Json* id = message.find("id");
    if (id == nullptr || id->as_uint().value_or(0) != last_id_) continue;  // a hello, a late pong
    for (const char* name : {"stdout", "stderr"}) {
      if (auto bytes = TRY(agent::get_bytes(message, name)))
        sink(name == std::string_view("stderr"), *bytes);
    }
    if (auto ending = TRY(ending_of(message))) return *std::move(ending);
  }
}

Result<void> AgentClient::power_off() {
  TRY(wait_ready(kGrace));
  TRY(send_raw(agent::encode_frame(Json::object({{"id", ++last_id_}, {"power_off", true}}))));
  auto deadline = Clock::now() + kGrace;
  for (;;) {
    auto message = receive_until(deadline);
    if (!message && message.error().code() == std::errc::connection_reset)
      return {};  // gone already
    Json answer = TRY(std::move(message));
    const Json* id = answer.find("id");
    if (id == nullptr || id->as_uint().value_or(0) != last_id_) continue;
    TRY(ending_of(answer));
    return {};
  }
}

}  // namespace crosvm::test
