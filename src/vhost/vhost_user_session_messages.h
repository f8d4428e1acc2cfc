#pragma once

#include <fcntl.h>

#include <utility>

#include "base/fd.h"
#include "base/format.h"
#include "base/result.h"
#include "vhost/vhost_user_channel.h"

namespace crosvm::vhost_user_session {

/// The payload as a T. Errors: it has another size.
template <class T>
Result<T> payload(const VhostUserMessage& message) {
  if (const auto value = message.payload_as<T>()) return *value;
  return fail(Error::invalid(
      format_text("its payload has {} bytes instead of {}", message.payload.size(), sizeof(T))));
}

/// An answer without a payload, and one with.
inline VhostUserMessage reply(const VhostUserMessage& to) {
  VhostUserMessage message = vhost_user_message(to.request);
  message.flags = kVhostUserReply;
  return message;
}

template <class T>
VhostUserMessage reply(const VhostUserMessage& to, const T& value) {
  VhostUserMessage message = reply(to);
  message.add(value);
  return message;
}

/// Takes the descriptor of a message. Errors: there is not exactly one.
inline Result<Fd> only_fd(VhostUserMessage& message) {
  if (message.fds.size() == 1) return std::move(message.fds.front());
  return fail(Error::invalid(
      format_text("it came with {} descriptors instead of one", message.fds.size())));
}

/// A descriptor is shared with the front-end, which must not make us wait.
inline Result<void> make_nonblocking(const Fd& fd) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags >= 0 && ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) == 0) return {};
  return fail(Error::from_errno("making it non-blocking", "its descriptor"));
}

}  // namespace crosvm::vhost_user_session
