#include <utility>

#include "base/format.h"
#include "vhost/vhost_user_device.h"

// The log of dirty pages, as a VhostUserDevice asks for it ("Migration").

namespace crosvm {
namespace {

/// SET_LOG_BASE is answered with nothing by some back-ends, by others as an acknowledgement.
Result<void> log_taken(const VhostUserMessage& answer) {
  if (answer.payload.empty() || answer.payload_as<uint64_t>() == 0u) return {};
  return fail(Error::invalid("the vhost-user back-end refuses the log of dirty pages"));
}

}  // namespace

bool VhostUserDevice::can_log() const {
  return has(VHOST_USER_PROTOCOL_F_LOG_SHMFD) &&
         (said().features & vhost_user_bit(kVhostLogAll)) != 0;
}

/// `done` as it is to be called, once: earlier with an error when the back-end goes.
VhostUserDevice::Done VhostUserDevice::until_lost(Done done) {
  const uint64_t id = next_pending_++;
  pending_.emplace(id, std::move(done));
  return [this, id](Result<void> result) {
    const auto found = pending_.find(id);
    if (found == pending_.end()) return;
    const Done waiting = std::move(found->second);
    pending_.erase(found);
    waiting(std::move(result));
  };
}

void VhostUserDevice::send_log(const Log& log, std::function<void(Result<void>)> on_answer) {
  auto message =
      vhost_user_message(VHOST_USER_SET_LOG_BASE, VhostUserLog{.size = log.bytes, .offset = 0});
  auto copy = log.file.duplicate();
  if (!copy) return on_answer(fail(std::move(copy).error()));
  message.fds.push_back(std::move(*copy));
  // It waits for what is in flight, as a ring that stops does.
  note(peer_->conversation.ask(
      std::move(message),
      [on_answer = std::move(on_answer)](VhostUserMessage answer) -> Result<void> {
        on_answer(log_taken(answer));
        return {};
      },
      options_.stop_patience));
}

void VhostUserDevice::start_dirty_log(Fd log, uint64_t bytes, Done done) {
  if (!up()) {
    return done(fail(Error(std::errc::not_connected, options_.name + ": it has no back-end now")));
  }
  if (!can_log()) {
    return done(fail(
        Error(std::errc::not_supported,
              options_.name + ": its vhost-user back-end keeps no log of dirty pages; use one with "
                              "VHOST_F_LOG_ALL and VHOST_USER_PROTOCOL_F_LOG_SHMFD")));
  }
  auto shared = std::make_shared<Log>(Log{.file = std::move(log), .bytes = bytes});
  auto on_answer = [this, shared, done = until_lost(std::move(done))](Result<void> taken) {
    if (!taken) return done(fail(std::move(taken).error().context(options_.name)));
    log_ = std::move(*shared);
    tell_log_again(done);
  };
  send_log(*shared, std::move(on_answer));
}

void VhostUserDevice::stop_dirty_log(Done done) {
  log_.reset();
  if (!up()) return done({});
  tell_log_again(until_lost(std::move(done)));
}

/// Tells the features and the rings' addresses as they are with the log that there is now.
void VhostUserDevice::tell_log_again(Done done) {
  auto refusal = std::make_shared<std::string>();
  const auto refused = [refusal](const std::string& why) { *refusal = why; };
  if (const auto features = rings().told_features()) {
    order(vhost_user_message(VHOST_USER_SET_FEATURES, features_to_tell(*features)), refused);
    rings().for_each_running([&](uint16_t index, const FrontendRing& ring) {
      order(vring_addr(index, *ring.addresses), refused);
    });
  }
  if (!up()) return;
  // A back-end that acknowledges nothing has done what came before when it answers this.
  auto on_answer = [this, refusal,
                    done = std::move(done)](const VhostUserMessage&) -> Result<void> {
    if (refusal->empty()) {
      done({});
    } else {
      done(fail(Error::invalid(options_.name + ": " + *refusal)));
    }
    return {};
  };
  note(peer_->conversation.ask(vhost_user_message(VHOST_USER_GET_FEATURES), std::move(on_answer),
                               options_.stop_patience));
}

}  // namespace crosvm
