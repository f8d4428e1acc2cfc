#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <mutex>
#include <utility>

#include "base/format.h"
#include "vhost/vhost_user_device.h"
#include "virtio/device_state.h"

// The state of a back-end, as a VhostUserDevice takes it and gives it ("Migrating back-end state").

namespace crosvm {
namespace {

Error refused(const char* request) {
  return Error::invalid(format_text("the vhost-user back-end answers {} with an error", request));
}

/// A file of the back-end's could keep us waiting, whatever its flags say; these two cannot. Asked
/// without a call that reaches the file.
bool is_pipe_or_socket(const Fd& fd) {
  int type = 0;
  socklen_t size = sizeof(type);
  return ::fcntl(fd.get(), F_GETPIPE_SZ) >= 0 ||
         ::getsockopt(fd.get(), SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

}  // namespace

Result<void> VhostUserDevice::may_hand_over_state() const {
  if (!up()) {
    return fail(Error(std::errc::not_connected, options_.name + ": it has no back-end now"));
  }
  if (!has(VHOST_USER_PROTOCOL_F_DEVICE_STATE)) {
    return fail(Error(std::errc::not_supported,
                      options_.name +
                          ": its vhost-user back-end cannot hand over its state; use one with "
                          "VHOST_USER_PROTOCOL_F_DEVICE_STATE"));
  }
  if (state_busy_) {
    return fail(Error::invalid(options_.name + ": its state is being handed over already"));
  }
  return {};
}

void VhostUserDevice::save_state(StateDone done) {
  begin_state(kVhostUserStateSave, {}, std::move(done));
}

void VhostUserDevice::load_state(std::vector<std::byte> state, Done done) {
  begin_state(kVhostUserStateLoad, std::move(state),
              [done = std::move(done)](Result<std::vector<std::byte>> moved) {
                done(moved ? Result<void>() : fail(std::move(moved).error()));
              });
}

/// `done` as it is to be called, once, naming the device.
VhostUserDevice::StateDone VhostUserDevice::until_lost(StateDone done) {
  auto kept = std::make_shared<Result<std::vector<std::byte>>>();
  Done once = until_lost(Done([kept, done = std::move(done)](Result<void> result) {
    if (!result) return done(fail(std::move(result).error()));
    done(std::move(*kept));
  }));
  return [this, kept, once = std::move(once)](Result<std::vector<std::byte>> result) {
    state_busy_ = false;
    if (!result) return once(fail(std::move(result).error().context(options_.name)));
    *kept = std::move(result);
    once({});
  };
}

void VhostUserDevice::begin_state(uint32_t direction, std::vector<std::byte> state,
                                  StateDone done) {
  if (auto may = may_hand_over_state(); !may) return done(fail(std::move(may).error()));
  if (!rings().all_stopped()) {
    return done(fail(Error::invalid(options_.name + ": its state with a ring that runs")));
  }
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return done(fail(Error::from_errno("making", "a pipe for the state of " + options_.name)));
  }
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  const bool save = direction == kVhostUserStateSave;
  auto message = vhost_user_message(
      VHOST_USER_SET_DEVICE_STATE_FD,
      VhostUserDeviceState{.direction = direction, .phase = kVhostUserPhaseStopped});
  message.fds.push_back(std::move(save ? writer : reader));
  auto ours = std::make_shared<Fd>(std::move(save ? reader : writer));
  state_busy_ = true;
  auto on_answer = [this, direction, ours, state = std::move(state),
                    done = until_lost(std::move(done))](VhostUserMessage answer) {
    return have_state_pipe(std::move(answer), direction, std::move(*ours), state, done);
  };
  note(peer_->conversation.ask(std::move(message), std::move(on_answer)));
}

Result<void> VhostUserDevice::have_state_pipe(VhostUserMessage answer, uint32_t direction, Fd ours,
                                              std::vector<std::byte> state, const StateDone& done) {
  const auto told = answer.payload_as<uint64_t>();
  if (!told || answer.fds.size() > 1) {
    return fail(Error(std::errc::bad_message,
                      format_text("SET_DEVICE_STATE_FD was answered with {} bytes and {} "
                                  "descriptors",
                                  answer.payload.size(), answer.fds.size())));
  }
  if ((*told & 0xff) != 0) {
    done(fail(refused("SET_DEVICE_STATE_FD")));
    return {};
  }
  // The back-end may prefer a descriptor of its own.
  if ((*told & kVhostUserVringNoFd) == 0 && !answer.fds.empty()) {
    ours = std::move(answer.fds[0]);
    if (!is_pipe_or_socket(ours)) {
      done(fail(Error::invalid("the vhost-user back-end's way for its state is no pipe")));
      return {};
    }
  }
  const StateTransfer::Options options{
      .loop = loop(), .most = DeviceState::kMostBytes, .patience = options_.stop_patience};
  auto moved = [this, done](Result<std::vector<std::byte>> result) {
    std::lock_guard lock(mutex());
    if (closed() || !peer_) return;
    state_moved(std::move(result), done);
    settle();
  };
  auto begun =
      direction == kVhostUserStateSave
          ? StateTransfer::receive(options, std::move(ours), std::move(moved))
          : StateTransfer::send(options, std::move(ours), std::move(state), std::move(moved));
  if (!begun) {
    done(fail(std::move(begun).error()));
  } else {
    state_transfer_ = std::move(*begun);
  }
  return {};
}

void VhostUserDevice::state_moved(Result<std::vector<std::byte>> moved, const StateDone& done) {
  state_transfer_.reset();
  if (!moved) return done(fail(std::move(moved).error()));
  // What came of it at the other end is not in the pipe.
  auto shared = std::make_shared<std::vector<std::byte>>(std::move(*moved));
  auto on_answer = [shared, done](VhostUserMessage answer) -> Result<void> {
    if (answer.payload_as<uint64_t>() == 0u) {
      done(std::move(*shared));
    } else {
      done(fail(refused("CHECK_DEVICE_STATE")));
    }
    return {};
  };
  note(peer_->conversation.ask(vhost_user_message(VHOST_USER_CHECK_DEVICE_STATE),
                               std::move(on_answer), options_.stop_patience));
}

}  // namespace crosvm
