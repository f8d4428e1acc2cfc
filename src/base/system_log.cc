#include "base/system_log.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/format.h"

namespace crosvm {

SystemLog::SystemLog(std::string tag, std::string path)
    : tag_(std::move(tag)), path_(std::move(path)) {
  connect();
}

void SystemLog::connect() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof(address.sun_path)) return;
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket &&
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    socket_ = std::move(socket);
  }
}

void SystemLog::write(int severity, std::string_view text) {
  const time_t now = ::time(nullptr);
  tm local{};
  std::array<char, 32> stamp{};
  if (::localtime_r(&now, &local) == nullptr ||
      ::strftime(stamp.data(), stamp.size(), "%b %e %H:%M:%S", &local) == 0) {
    return;
  }
  const std::string record =
      format_text("<{}>{} {}[{}]: {}", LOG_USER | severity, stamp.data(), tag_, ::getpid(), text);
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (!socket_ && !sealed_) connect();
    if (!socket_) return;
    const ssize_t sent = ::send(socket_.get(), record.data(), record.size(), MSG_NOSIGNAL);
    if (sent >= 0 || (errno != ECONNREFUSED && errno != ENOTCONN) || sealed_) return;
    socket_ = {};  // the receiver was started anew
  }
}

}  // namespace crosvm
