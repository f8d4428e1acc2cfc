#include "devices/net/stream_dialer.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <expected>
#include <utility>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

/// Does not wait. The error is an errno.
std::expected<Fd, int> connect_to(const UnixAddress& address) {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket || ::connect(socket.get(), address.get(), address.size()) != 0) {
    return std::unexpected(errno);
  }
  return socket;
}

std::string fix_for(int error, const std::string& path, std::string_view passt) {
  switch (error) {
    case ENOENT:
    case ECONNREFUSED:
      return format_text("; start passt there first: {} {}", passt, path);
    case EACCES:
      return "; the socket and its folder must be open to the user who starts the VM";
    case EAGAIN:
      return "; other VMs wait there: each has a passt of its own";
    case EPROTOTYPE:
    case ENOTDIR:
      return "; it is no stream socket: give the one of passt --socket";
    default:
      return "";
  }
}

}  // namespace

Result<Fd> connect_stream(const std::string& path, std::string_view passt) {
  auto socket = connect_to(TRY(UnixAddress::of_long(path)));
  if (socket) return *std::move(socket);
  const Error why = Error::from_errno("connecting to", path, socket.error());
  // Of any other file, too, the system only says that nobody listens.
  struct stat found{};
  const bool other = ::stat(path.c_str(), &found) == 0 && !S_ISSOCK(found.st_mode);
  const int cause = other ? EPROTOTYPE : socket.error();
  return fail(Error(why.code(), why.what() + fix_for(cause, path, passt)));
}

StreamDialer::StreamDialer(EventLoop& loop, const std::string& path, UnixAddress address,
                           Connected connected)
    : loop_(loop), path_(path), address_(std::move(address)), connected_(std::move(connected)) {}

Result<std::unique_ptr<StreamDialer>> StreamDialer::create(EventLoop& loop, const std::string& path,
                                                           Connected connected) {
  return std::unique_ptr<StreamDialer>(
      new StreamDialer(loop, path, TRY(UnixAddress::of_long(path)), std::move(connected)));
}

StreamDialer::~StreamDialer() { loop_.cancel(timer_); }

void StreamDialer::dial() {
  if (timer_ != 0) return;
  // Who ends a connection at once serves somebody else, and is not asked twice a second for ever.
  const bool short_lived = Clock::now() - connected_at_ < kShortLife;
  pause_ = short_lived ? std::min(2 * pause_, kMostPause) : kPause;
  timer_ = loop_.after(pause_, [this] { connect(); });
}

void StreamDialer::connect() {
  timer_ = 0;
  auto socket = connect_to(address_);
  if (!socket) {
    tell(socket.error());
    timer_ = loop_.after(kPause, [this] { connect(); });
    return;
  }
  told_ = 0;
  connected_at_ = Clock::now();
  connected_(*std::move(socket));
}

/// Said once, however often it is tried; that nobody is there yet is no news.
void StreamDialer::tell(int error) {
  if (std::exchange(told_, error) == error || error == ENOENT || error == ECONNREFUSED) return;
  log::warn("{}{}; it is tried again", Error::from_errno("connecting to", path_, error).what(),
            fix_for(error, path_, "passt"));
}

}  // namespace crosvm
