#include "vhost/vhost_user_session.h"

// The messages about the log of dirty pages ("Migration").

#include <utility>

#include "base/format.h"
#include "vhost/vhost_user_session_messages.h"

namespace crosvm {

using namespace vhost_user_session;

Result<VhostUserSession::Answer> VhostUserSession::set_log_base(VhostUserMessage& message,
                                                                Ticket ticket) {
  if (!has_protocol(VHOST_USER_PROTOCOL_F_LOG_SHMFD)) {
    return fail(Error::invalid("LOG_SHMFD was not negotiated"));
  }
  const auto where = TRY(payload<VhostUserLog>(message));
  auto log = TRY(DirtyLog::map(TRY(only_fd(message)), where.offset, where.size));
  if (device_.memory && !log->covers({}, device_.memory->end().value)) {
    return fail(
        Error::invalid(format_text("a log of {} bytes is too small for RAM that ends at "
                                   "{:#x}",
                                   where.size, device_.memory->end().value)));
  }
  if (log_event_) log = log->with_event(TRY(log_event_.duplicate()));
  log_ = std::move(log);
  use_log();
  device_.host.when_settled(answer_later(ticket, reply(message)));
  return Later{};
}

Result<VhostUserSession::Answer> VhostUserSession::set_log_fd(VhostUserMessage& message,
                                                              Ticket ticket) {
  Fd event = TRY(only_fd(message));
  TRY(make_nonblocking(event));
  log_event_ = std::move(event);
  if (log_) log_ = log_->with_event(TRY(log_event_.duplicate()));
  use_log();
  device_.host.when_settled(acknowledge_later(message, ticket));
  return Later{};
}

/// Whether the device was told of another log.
bool VhostUserSession::use_log() {
  auto log = has_feature(kVhostLogAll) ? log_ : nullptr;
  if (log == used_log_) return false;
  used_log_ = std::move(log);
  device_.host.set_dirty_log(used_log_);
  return true;
}

}  // namespace crosvm
