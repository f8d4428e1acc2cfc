#include "vhost/vhost_user_channel.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/format.h"
#include "base/wait_ready.h"

namespace crosvm {
namespace {

// As many descriptors as the kernel lets one message carry (SCM_MAX_FD): so what is cut off was cut
// off for lack of descriptors on our side.
constexpr size_t kMostScmFds = 253;
constexpr const char* kPeer = "the vhost-user peer";

union ControlBuffer {
  cmsghdr header;
  std::array<std::byte, CMSG_SPACE(sizeof(int) * kMostScmFds)> bytes;
};

/// Takes the descriptors out of a received control message, all of them: they are ours to close.
void take_fds(msghdr& received, std::vector<Fd>& to) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&received); part; part = CMSG_NXTHDR(&received, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int raw = -1;
      std::memcpy(&raw, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      to.emplace_back(raw);
    }
  }
}

void put_fds(std::span<const Fd> fds, ControlBuffer& control, msghdr& message) {
  message.msg_control = &control;
  message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
  cmsghdr* const part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
  for (size_t i = 0; i < fds.size(); ++i) {
    const int raw = fds[i].get();
    std::memcpy(CMSG_DATA(part) + i * sizeof(int), &raw, sizeof(int));
  }
}

}  // namespace

Result<std::optional<size_t>> VhostUserChannel::read_some(std::span<std::byte> to) {
  ControlBuffer control;
  iovec bytes{to.data(), to.size()};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof(control);
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::nullopt;
  if (got < 0) return fail(Error::from_errno("reading from", kPeer));
  std::vector<Fd>& fds = incoming_.message.fds;
  take_fds(message, fds);
  if (message.msg_flags & MSG_CTRUNC) {
    return fail(Error(std::errc::too_many_files_open,
                      "descriptors of a vhost-user message were lost: this process may open no "
                      "more; raise RLIMIT_NOFILE"));
  }
  if (fds.size() > kVhostUserMaxFds) {
    return fail(Error(std::errc::argument_list_too_long,
                      format_text("a vhost-user message came with {} descriptors, {} are allowed",
                                  fds.size(), kVhostUserMaxFds)));
  }
  if (got == 0) {
    if (incoming_.header_bytes == 0) {
      return fail(Error(std::errc::not_connected, "the vhost-user peer closed the connection"));
    }
    return fail(Error(std::errc::connection_aborted,
                      "the vhost-user peer closed the connection in the middle of a message"));
  }
  return static_cast<size_t>(got);
}

Result<bool> VhostUserChannel::read_header() {
  Incoming& in = incoming_;
  const auto bytes = std::as_writable_bytes(std::span(&in.header, 1));
  while (in.header_bytes < bytes.size()) {
    const auto got = TRY(read_some(bytes.subspan(in.header_bytes)));
    if (!got) return false;
    in.header_bytes += *got;
    if (in.header_bytes < bytes.size()) continue;
    if ((in.header.flags & kVhostUserVersionMask) != kVhostUserVersion) {
      return fail(Error(
          std::errc::protocol_not_supported,
          format_text("vhost-user message {} of version {}, we know version {}", in.header.request,
                      in.header.flags & kVhostUserVersionMask, kVhostUserVersion)));
    }
    if (in.header.size > kVhostUserMaxPayload) {
      return fail(Error(std::errc::message_size,
                        format_text("vhost-user message {} of {} bytes, {} are allowed",
                                    in.header.request, in.header.size, kVhostUserMaxPayload)));
    }
    in.message.payload.resize(in.header.size);
  }
  return true;
}

Result<bool> VhostUserChannel::read_payload() {
  Incoming& in = incoming_;
  while (in.payload_bytes < in.message.payload.size()) {
    const auto got = TRY(read_some(std::span(in.message.payload).subspan(in.payload_bytes)));
    if (!got) return false;
    in.payload_bytes += *got;
  }
  return true;
}

Result<std::optional<VhostUserMessage>> VhostUserChannel::receive() {
  // Never past the end of a message: what comes with these bytes belongs to it.
  if (!TRY(read_header()) || !TRY(read_payload())) return std::nullopt;
  Incoming done = std::exchange(incoming_, {});
  done.message.request = done.header.request;
  done.message.flags = done.header.flags;
  return std::move(done.message);
}

Result<size_t> VhostUserChannel::write_some(const Outgoing& out) const {
  ControlBuffer control{};
  iovec bytes{const_cast<std::byte*>(out.bytes.data()) + out.sent, out.bytes.size() - out.sent};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  if (!out.fds.empty()) put_fds(out.fds, control, message);
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
  if (sent < 0) return fail(Error::from_errno("writing to", kPeer));
  return static_cast<size_t>(sent);
}

Result<void> VhostUserChannel::send(VhostUserMessage message) {
  CHECK(message.fds.size() <= kVhostUserMaxFds && message.payload.size() <= kVhostUserMaxPayload);
  const VhostUserHeader header{
      .request = message.request,
      .flags = (message.flags & ~kVhostUserVersionMask) | kVhostUserVersion,
      .size = static_cast<uint32_t>(message.payload.size())};
  const auto head = std::as_bytes(std::span(&header, 1));
  Outgoing out{.bytes = {head.begin(), head.end()}, .sent = 0, .fds = std::move(message.fds)};
  out.bytes.insert(out.bytes.end(), message.payload.begin(), message.payload.end());
  queued_bytes_ += out.bytes.size();
  queue_.push_back(std::move(out));
  TRY(flush());
  if (queue_.size() <= kMostQueuedMessages && queued_bytes_ <= kMostQueuedBytes) return {};
  return fail(Error(
      std::errc::no_buffer_space,
      format_text("the vhost-user peer does not read: {} messages wait for it", queue_.size())));
}

Result<void> VhostUserChannel::flush() {
  while (!queue_.empty()) {
    Outgoing& out = queue_.front();
    const size_t sent = TRY(write_some(out));
    if (sent == 0) return {};
    out.fds.clear();
    out.sent += sent;
    if (out.sent < out.bytes.size()) continue;
    queued_bytes_ -= out.bytes.size();
    queue_.pop_front();
  }
  return {};
}

Result<void> VhostUserChannel::wait_sent(Clock::time_point deadline) {
  for (;;) {
    TRY(flush());
    if (queue_.empty()) return {};
    if (TRY(wait_ready(socket_, POLLOUT, deadline)) == Waited::kLate) {
      return fail(Error(std::errc::timed_out, "the vhost-user peer does not read in time"));
    }
  }
}

Result<VhostUserMessage> VhostUserChannel::wait_message(Clock::time_point deadline) {
  for (;;) {
    if (auto message = TRY(receive())) return std::move(*message);
    if (TRY(wait_ready(socket_, POLLIN, deadline)) == Waited::kLate) {
      return fail(Error(std::errc::timed_out, "the vhost-user peer does not answer in time"));
    }
  }
}

Result<VhostUserMessage> VhostUserChannel::call(VhostUserMessage message,
                                                Clock::time_point deadline) {
  const uint32_t request = message.request;
  const auto named = [&](auto result) {
    return with_context(std::move(result), format_text("vhost-user request {}", request));
  };
  TRY(named(send(std::move(message))));
  TRY(named(wait_sent(deadline)));
  VhostUserMessage answer = TRY(named(wait_message(deadline)));
  if (answer.is_reply() && answer.request == request) return answer;
  return fail(Error(std::errc::bad_message,
                    format_text("vhost-user request {} was answered by message {} with flags {:#x}",
                                request, answer.request, answer.flags)));
}

}  // namespace crosvm
