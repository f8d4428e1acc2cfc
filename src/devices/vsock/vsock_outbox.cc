#include "devices/vsock/vsock_outbox.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace crosvm {
namespace {

constexpr size_t kMostSlices = 64;  // that a call takes at once; the rest is kept

/// Bytes that the socket took; 0 where it would have to be waited for. `whole`: they stand for one
/// message, which goes as it is or not at all.
Result<size_t> send_now(const Fd& socket, std::span<iovec> parts, int flags, bool& waits) {
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  ssize_t put;
  do {
    put = ::sendmsg(socket.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL | flags);
  } while (put < 0 && errno == EINTR);
  waits = put < 0 && errno == EAGAIN;
  if (waits) return 0;
  if (put < 0) return fail(Error::from_errno("sending to", "a socket of the host"));
  return static_cast<size_t>(put);
}

/// The length of a kept message stands before it: in one byte when it is short, as many are.
struct MessageMark {
  static constexpr uint8_t kRecordEnd = 0x80;
  static constexpr uint8_t kLong = 0x40;  // the length is in the next four bytes
  static constexpr uint32_t kShortest = 0x40;

  uint32_t length = 0;
  bool ends_record = false;

  size_t size() const { return length < kShortest ? 1 : 1 + sizeof(length); }
  void write(std::span<std::byte> to) const {
    const bool is_long = length >= kShortest;
    to[0] = std::byte(
        static_cast<uint8_t>((ends_record ? kRecordEnd : 0) | (is_long ? kLong : length)));
    if (is_long) std::memcpy(&to[1], &length, sizeof(length));
  }
  static MessageMark read(std::span<const std::byte> from) {
    const auto first = std::to_integer<uint8_t>(from[0]);
    MessageMark mark{.length = first & (kShortest - 1u), .ends_record = (first & kRecordEnd) != 0};
    if ((first & kLong) != 0) std::memcpy(&mark.length, &from[1], sizeof(mark.length));
    return mark;
  }
};

}  // namespace

std::span<std::byte> VsockOutbox::extend(size_t bytes) {
  if (head_ > 0 && head_ >= kept_.size() / 2) {
    kept_.erase(kept_.begin(), kept_.begin() + static_cast<ptrdiff_t>(head_));
    head_ = 0;
  }
  const size_t old = kept_.size();
  kept_.resize(old + bytes);
  return std::span(kept_).subspan(old);
}

void VsockOutbox::drop(size_t bytes) {
  head_ += bytes;
  if (!empty()) return;
  kept_ = {};  // a connection that has nothing to keep costs no memory
  head_ = 0;
}

Result<uint32_t> VsockOutbox::put(const Fd& socket, const ChainBuffers& chain, const Piece& piece) {
  return seqpacket_ ? put_message(socket, chain, piece) : put_stream(socket, chain, piece);
}

Result<uint32_t> VsockOutbox::flush(const Fd& socket) {
  return seqpacket_ ? flush_messages(socket) : flush_stream(socket);
}

// ---- streams

Result<uint32_t> VsockOutbox::put_stream(const Fd& socket, const ChainBuffers& chain,
                                         const Piece& piece) {
  uint32_t sent = 0;
  if (empty() && piece.length > 0) {
    const auto slices = TRY(chain.cut(piece.offset, piece.length));
    std::array<iovec, kMostSlices> parts;
    size_t count = 0;
    for (const GuestSlice& slice : slices) {
      if (count < parts.size()) parts[count++] = slice.as_iovec();
    }
    bool waits = false;
    sent = static_cast<uint32_t>(TRY(send_now(socket, std::span(parts).first(count), 0, waits)));
  }
  if (sent < piece.length) {
    TRY(chain.read_bytes(piece.offset + sent, extend(piece.length - sent)));
  }
  return sent;
}

Result<uint32_t> VsockOutbox::flush_stream(const Fd& socket) {
  uint32_t sent = 0;
  bool waits = false;
  while (!empty() && !waits) {
    iovec rest{.iov_base = kept_.data() + head_, .iov_len = kept_.size() - head_};
    const size_t taken = TRY(send_now(socket, std::span(&rest, 1), 0, waits));
    drop(taken);
    sent += static_cast<uint32_t>(taken);
  }
  return sent;
}

// ---- messages

Result<uint32_t> VsockOutbox::put_message(const Fd& socket, const ChainBuffers& chain,
                                          const Piece& piece) {
  const size_t before = message_.size();
  message_.resize(before + piece.length);
  TRY(chain.read_bytes(piece.offset, std::span(message_).subspan(before)));
  if (!piece.ends_message) return 0;
  if (empty()) {
    iovec all{.iov_base = message_.data(), .iov_len = message_.size()};
    bool waits = false;
    TRY(send_now(socket, std::span(&all, 1), piece.ends_record ? MSG_EOR : 0, waits));
    if (!waits) {
      const auto length = static_cast<uint32_t>(message_.size());
      message_ = {};
      return length;
    }
  }
  TRY(keep_message(piece.ends_record));
  return 0;
}

Result<void> VsockOutbox::keep_message(bool ends_record) {
  const MessageMark mark{.length = static_cast<uint32_t>(message_.size()),
                         .ends_record = ends_record};
  // The credit bounds what messages hold, and not how many hold nothing.
  if (kept_.size() - head_ + mark.size() + mark.length > size_t{2} * room_) {
    return fail(Error(std::errc::no_buffer_space, "too many messages wait for a reader"));
  }
  const auto place = extend(mark.size() + mark.length);
  mark.write(place);
  if (mark.length > 0) std::memcpy(&place[mark.size()], message_.data(), mark.length);
  message_ = {};
  return {};
}

Result<uint32_t> VsockOutbox::flush_messages(const Fd& socket) {
  uint32_t sent = 0;
  while (!empty()) {
    const auto mark = MessageMark::read(std::span(kept_).subspan(head_));
    iovec all{.iov_base = kept_.data() + head_ + mark.size(), .iov_len = mark.length};
    bool waits = false;
    TRY(send_now(socket, std::span(&all, 1), mark.ends_record ? MSG_EOR : 0, waits));
    if (waits) break;
    drop(mark.size() + mark.length);
    sent += mark.length;
  }
  return sent;
}

}  // namespace crosvm
