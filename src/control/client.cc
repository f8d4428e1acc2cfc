#include "control/client.h"

#include <poll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "control/socket.h"

namespace crosvm::control {

namespace {

/// A VM answers within milliseconds, unless its process is stopped or its machine is overloaded.
void await_answer(const Fd& fd, const std::string& socket_path) {
  constexpr int kPatienceMs = 5000;
  pollfd answer{.fd = fd.get(), .events = POLLIN, .revents = 0};
  if (::poll(&answer, 1, kPatienceMs) != 0) return;
  ucred peer{};
  socklen_t size = sizeof(peer);
  (void)::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size);
  log::warn(
      "{}: the VM (pid {}) has not answered for {} seconds, and is waited for; if its process is "
      "stopped, kill -CONT {} lets it go on",
      socket_path, peer.pid, kPatienceMs / 1000, peer.pid);
}

}  // namespace

Result<Response> ask(const std::string& socket_path, Request request) {
  PacketSocket socket = TRY(connect(socket_path));
  TRY(with_context(socket.send(encode(std::move(request))), socket_path));
  await_answer(socket.fd(), socket_path);
  auto packet = TRY(with_context(socket.receive(), socket_path));
  if (!packet) {
    return fail(Error(std::errc::connection_reset,
                      socket_path +
                          ": the VM closed the connection without an answer; its log says "
                          "why, if it refused the request"));
  }
  return decode_response(std::move(*packet));
}

int run_simple_client(std::string_view name, const std::string& socket_path, Request request,
                      std::FILE* out, std::string_view (*explain)(std::errc code)) {
  auto response = ask(socket_path, std::move(request));
  if (response && std::holds_alternative<response::Ok>(*response)) {
    log::info("exiting with success");
    return 0;
  }
  if (response) {
    std::fprintf(out, "unexpected response: %s\n", display(*response).c_str());
    const auto* error = std::get_if<response::Err>(&*response);
    if (explain && error) {
      const std::string_view why = explain(static_cast<std::errc>(error->value));
      if (!why.empty()) log::error("{}", why);
    }
  } else {
    log::error("{}", response.error().what());
  }
  log::error("{} subcommand failed", name);
  return 1;
}

}  // namespace crosvm::control
