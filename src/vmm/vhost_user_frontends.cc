#include "vmm/vhost_user_frontends.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "base/unix_address.h"
#include "base/user_file.h"
#include "base/wait_ready.h"

namespace crosvm {
namespace {

using Clock = std::chrono::steady_clock;

bool nobody_there(std::errc code) {
  return code == std::errc::no_such_file_or_directory || code == std::errc::connection_refused;
}

std::string_view fix_for(std::errc code) {
  if (nobody_there(code)) {
    return "; start the back-end first, or let --vhost-user-connect-timeout-ms wait for it";
  }
  switch (code) {
    case std::errc::permission_denied:
      return "; make it writable for the user who starts crosvm";
    case std::errc::wrong_protocol_type:
      return "; it is no stream socket, so no back-end listens there";
    case std::errc::resource_unavailable_try_again:
      return "; the back-end has a front-end already, and takes no other";
    default:
      return "";
  }
}

bool is_socket(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

/// Does not wait: a listener without room for another front-end is an error.
Result<Fd> connect_once(const std::string& path) {
  const UnixAddress address = TRY(UnixAddress::of_long(path));
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail(Error::from_errno("creating", "a socket for a vhost-user back-end"));
  if (::connect(socket.get(), address.get(), address.size()) != 0) {
    return fail(Error::from_errno("connecting to socket", path));
  }
  return socket;
}

Result<Fd> adopt(const std::string& path) {
  Fd socket = TRY(open_user_file(path, O_RDWR));
  int type = 0;
  socklen_t size = sizeof(type);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) {
    return fail(Error::invalid(path + ": this is no stream socket, as vhost-user needs"));
  }
  return socket;
}

}  // namespace

Result<Fd> connect_vhost_user(const std::string& path, const VhostUserPatience& patience) {
  const std::optional<std::chrono::milliseconds> timeout = patience.connect_timeout;
  constexpr std::chrono::milliseconds kStep{1};
  if (path.starts_with(kOwnDescriptors)) return adopt(path);
  const Clock::time_point start = Clock::now();
  while (true) {
    auto socket = connect_once(path);
    if (socket) return socket;
    const std::errc code = socket.error().code();
    if (code == std::errc::connection_refused && !is_socket(path)) {
      return fail(Error::invalid(
          format_text("{}: this is no socket; give the path that the back-end listens on", path)));
    }
    const bool waits = timeout && nobody_there(code);
    // Elapsed is compared, not a deadline that a large timeout would overflow.
    if (waits && Clock::now() - start < *timeout) {
      const Waited waited = TRY(wait_ready(Fd(), 0, Clock::now() + kStep, patience.interrupt));
      if (waited != Waited::kInterrupted) continue;
      return fail(interrupted_waiting_for(format_text("a back-end at {}", path)));
    }
    if (waits) {
      return fail(Error(code, format_text("{}; nobody has listened there for {} ms: see why the "
                                          "back-end does not start, or wait longer",
                                          socket.error().what(), timeout->count())));
    }
    return fail(Error(code, format_text("{}{}", socket.error().what(), fix_for(code))));
  }
}

Result<void> VhostUserFrontends::connect(const std::vector<VhostUserRequest>& requests,
                                         const VhostUserPatience& patience, EventLoop& loop,
                                         const Lost& lost) {
  interrupt_ = patience.interrupt;
  for (const VhostUserRequest& request : requests) {
    const std::string name = request.name();
    Fd socket = TRY(with_context(connect_vhost_user(request.socket, patience), name));
    VhostUserOptions options;
    options.name = name;
    options.device_type = request.device_type;
    options.max_queue_size = request.max_queue_size;
    options.disconnected = [lost, name, path = request.socket](const Error&) {
      lost(name, path);
      return AfterLoss::kGiveUp;
    };
    starting_.push_back(TRY(VhostUserBackend::start(loop, std::move(socket), std::move(options))));
    requests_.push_back(request);
  }
  return {};
}

Result<void> VhostUserFrontends::finish(std::vector<std::unique_ptr<DeviceBackend>>& backends) {
  for (size_t i = 0; i < starting_.size(); ++i) {
    auto backend = starting_[i].finish(interrupt_);
    if (!backend) {
      return fail(std::move(backend).error().context("the back-end at " + requests_[i].socket));
    }
    backends.push_back(std::move(*backend));
  }
  starting_.clear();
  return {};
}

}  // namespace crosvm
