#include "vhost/vhost_user_session.h"

// The messages that hand over the state of the device ("Migrating back-end state").

#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "vhost/vhost_user_session_messages.h"
#include "virtio/device_state.h"

namespace crosvm {

using namespace vhost_user_session;

Result<VhostUserSession::Answer> VhostUserSession::set_device_state(VhostUserMessage& message) {
  if (!has_protocol(VHOST_USER_PROTOCOL_F_DEVICE_STATE)) {
    return fail(Error::invalid("DEVICE_STATE was not negotiated"));
  }
  const auto wanted = TRY(payload<VhostUserDeviceState>(message));
  Fd pipe = TRY(only_fd(message));
  if (wanted.direction > kVhostUserStateLoad || wanted.phase != kVhostUserPhaseStopped) {
    return fail(
        Error::invalid(format_text("direction {} and phase {}", wanted.direction, wanted.phase)));
  }
  if (state_transfer_) return fail(Error::invalid("the device's state is being handed over"));
  TRY(begin_state(wanted, std::move(pipe)));
  // The front-end's own descriptor is used.
  return reply(message, kVhostUserVringNoFd);
}

Result<void> VhostUserSession::begin_state(const VhostUserDeviceState& wanted, Fd pipe) {
  if (!device_.host.stopped()) return fail(Error::invalid("a ring runs"));
  state_taken_.reset();
  const StateTransfer::Options options{.loop = device_.loop, .most = DeviceState::kMostBytes};
  if (wanted.direction == kVhostUserStateSave) {
    auto bytes = TRY(device_.host.save_state());
    state_transfer_ = TRY(StateTransfer::send(
        options, std::move(pipe), std::move(bytes), [this](Result<std::vector<std::byte>> sent) {
          end_state(sent ? Result<void>() : fail(std::move(sent).error()));
        }));
    return {};
  }
  state_transfer_ = TRY(StateTransfer::receive(
      options, std::move(pipe), [this](Result<std::vector<std::byte>> bytes) {
        end_state(bytes ? device_.host.load_state(*bytes) : fail(std::move(bytes).error()));
      }));
  return {};
}

void VhostUserSession::end_state(Result<void> result) {
  state_transfer_.reset();
  state_taken_ = result.has_value();
  if (!result && device_.complaints.allows()) {
    log::warn("{}: handing over its state: {}", device_.name, result.error().what());
  }
  if (!state_asked_) return;
  const Ticket ticket = *std::exchange(state_asked_, std::nullopt);
  finish(ticket, reply(vhost_user_message(VHOST_USER_CHECK_DEVICE_STATE),
                       uint64_t{*std::exchange(state_taken_, std::nullopt) ? 0u : 1u}));
}

void VhostUserSession::drop_state() {
  if (state_transfer_) end_state(fail(Error(std::errc::operation_canceled, "given up")));
  state_taken_.reset();
}

Result<VhostUserSession::Answer> VhostUserSession::check_device_state(
    const VhostUserMessage& message, Ticket ticket) {
  if (state_asked_) return fail(Error::invalid("it was asked already"));
  if (state_taken_) {
    return reply(message, uint64_t{*std::exchange(state_taken_, std::nullopt) ? 0u : 1u});
  }
  if (!state_transfer_) return fail(Error::invalid("no state was handed over"));
  state_asked_ = ticket;
  return Later{};
}

}  // namespace crosvm
