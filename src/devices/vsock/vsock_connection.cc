#include "devices/vsock/vsock_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

constexpr size_t kHeader = sizeof(VsockHeader);
constexpr size_t kMostSlices = 64;  // that a read fills at once
/// Edge-triggered: what is there is remembered, until a call says that it is over. A socket whose
/// peer has hung up would else keep the loop busy for as long as the guest has no room.
constexpr uint32_t kWatched = EPOLLIN | EPOLLRDHUP | EPOLLET;

Error broken(std::string what) { return Error(std::errc::protocol_error, std::move(what)); }

Error reading_failed() { return Error::from_errno("reading", "a socket of the host"); }

/// A message that waits in a socket with SO_PASSCRED; by its sender one without contents is told
/// from the end, which has none.
struct Waiting {
  enum class What { kNothing, kMessage, kEnd } what = What::kNothing;
  size_t bytes = 0;
};

Result<Waiting> look_at_message(const Fd& socket) {
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(ucred))> control;
  msghdr message{};
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(socket.get(), &message, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return Waiting{};
  if (size < 0) return fail(reading_failed());
  const bool has_sender = CMSG_FIRSTHDR(&message) != nullptr;
  if (size == 0 && !has_sender) return Waiting{.what = Waiting::What::kEnd};
  return Waiting{.what = Waiting::What::kMessage, .bytes = static_cast<size_t>(size)};
}

struct Received {
  ssize_t bytes = 0;
  bool ends_record = false;
};

Received receive(const Fd& socket, std::span<iovec> parts) {
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  Received got;
  do {
    got.bytes = ::recvmsg(socket.get(), &message, MSG_DONTWAIT);
  } while (got.bytes < 0 && errno == EINTR);
  got.ends_record = (message.msg_flags & MSG_EOR) != 0;
  return got;
}

/// The same into the payload of a packet.
Result<Received> receive(const Fd& socket, const ChainBuffers& room, size_t length) {
  std::array<iovec, kMostSlices> parts;
  size_t count = 0;
  for (const GuestSlice& slice : TRY(room.cut(kHeader, length))) {
    if (count < parts.size()) parts[count++] = slice.as_iovec();
  }
  return receive(socket, std::span(parts).first(count));
}

}  // namespace

VsockConnection::VsockConnection(EventLoop& loop, const Options& options)
    : loop_(loop),
      options_(options),
      phase_(options.from_host ? Phase::kOffered : Phase::kDialing),
      outbox_(options.seqpacket, options.buf_alloc) {}

VsockConnection::~VsockConnection() { loop_.unwatch(watch_); }

Result<void> VsockConnection::start(Fd socket, std::function<void(uint32_t events)> ready) {
  watch_ = TRY(loop_.watch(socket, kWatched, std::move(ready)));
  socket_ = std::move(socket);
  due_ |= kOpening;
  if (phase_ == Phase::kDialing) phase_ = Phase::kOpen;
  // What the guest said while it waited.
  if ((guest_shut_ & VIRTIO_VSOCK_SHUTDOWN_RCV) != 0) ::shutdown(socket_.get(), SHUT_RD);
  shut_socket_if_sent();
  return {};
}

// ---- from the socket

Result<void> VsockConnection::socket_ready(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  if ((events & EPOLLHUP) != 0) host_reads_no_more();
  if (socket_ && !outbox_.empty()) TRY(sent(outbox_.flush(socket_)));
  update_due();
  return {};
}

Result<void> VsockConnection::sent(Result<uint32_t> result) {
  if (result) {
    fwd_count_ += *result;
    TRY(watch_for_room());
    shut_socket_if_sent();
    return {};
  }
  if (result.error().code() != std::errc::broken_pipe) return fail(std::move(result).error());
  host_reads_no_more();
  return {};
}

Result<void> VsockConnection::watch_for_room() {
  const bool wants = !outbox_.empty();
  if (wants == watches_room_) return {};
  TRY(loop_.set_events(watch_, wants ? kWatched | EPOLLOUT : kWatched));
  watches_room_ = wants;
  return {};
}

void VsockConnection::shut_socket_if_sent() {
  if (socket_ && guest_sent_all() && outbox_.empty()) ::shutdown(socket_.get(), SHUT_WR);
}

void VsockConnection::host_reads_no_more() {
  host_shut_ |= VIRTIO_VSOCK_SHUTDOWN_RCV;
  discards_ = true;
  outbox_ = VsockOutbox(options_.seqpacket, options_.buf_alloc);
  fwd_count_ = rx_count_;
}

void VsockConnection::host_sent_all() {
  readable_ = false;
  host_shut_ |= VIRTIO_VSOCK_SHUTDOWN_SEND;
}

// ---- from the guest

void VsockConnection::take_credit(const VsockHeader& header) {
  peer_alloc_ = header.buf_alloc;
  // Packets may overtake each other on their way into the ring: an older count is no news, and one
  // of bytes that were never sent is none either.
  const uint32_t fwd = header.fwd_cnt;
  if (fwd - peer_fwd_ <= tx_count_ - peer_fwd_) peer_fwd_ = fwd;
  if (credit() >= needed_) asked_credit_ = false;
}

Result<void> VsockConnection::take(const VsockHeader& header, const ChainBuffers& chain) {
  take_credit(header);
  switch (header.op) {
    case VIRTIO_VSOCK_OP_RESPONSE:
      if (phase_ != Phase::kOffered) return fail(broken("an answer to what was not asked"));
      phase_ = Phase::kOpen;
      break;
    case VIRTIO_VSOCK_OP_RW:
      TRY(take_payload(header, chain));
      break;
    case VIRTIO_VSOCK_OP_SHUTDOWN:
      TRY(take_shutdown(header.flags & kBoth));
      break;
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
      break;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
      due_ |= kCreditUpdate;
      break;
    default: {
      const uint16_t op = header.op;  // a copy: packed
      return fail(broken(format_text("operation {} is not known", op)));
    }
  }
  update_due();
  return {};
}

Result<void> VsockConnection::take_payload(const VsockHeader& header, const ChainBuffers& chain) {
  const uint32_t length = header.len;
  if (phase_ != Phase::kOpen || guest_sent_all()) {
    return fail(broken("data before the connection stands, or after its end"));
  }
  if (length > options_.buf_alloc - (rx_count_ - fwd_count_)) {
    return fail(broken("more data than there is credit for"));
  }
  if (length > chain.size() - kHeader) return fail(broken("less data than its length says"));
  rx_count_ += length;
  if (discards_) {
    fwd_count_ = rx_count_;
    return {};
  }
  return sent(outbox_.put(socket_, chain,
                          {.offset = kHeader,
                           .length = length,
                           .ends_message = (header.flags & VIRTIO_VSOCK_SEQ_EOM) != 0,
                           .ends_record = (header.flags & VIRTIO_VSOCK_SEQ_EOR) != 0}));
}

Result<void> VsockConnection::take_shutdown(uint32_t flags) {
  const uint32_t before = std::exchange(guest_shut_, guest_shut_ | flags);
  const uint32_t news = guest_shut_ & ~before;
  if (socket_ && (news & VIRTIO_VSOCK_SHUTDOWN_RCV) != 0) ::shutdown(socket_.get(), SHUT_RD);
  if ((news & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0) shut_socket_if_sent();
  return {};
}

// ---- to the guest

uint32_t VsockConnection::credit() const {
  const uint32_t in_flight = tx_count_ - peer_fwd_;
  return peer_alloc_ > in_flight ? peer_alloc_ - in_flight : 0;
}

bool VsockConnection::may_read() const {
  return phase_ == Phase::kOpen && socket_ && readable_ &&
         (host_shut_ & VIRTIO_VSOCK_SHUTDOWN_SEND) == 0 &&
         (guest_shut_ & VIRTIO_VSOCK_SHUTDOWN_RCV) == 0;
}

void VsockConnection::update_due() {
  if (phase_ != Phase::kOpen) return;
  const uint32_t known_room = options_.buf_alloc - (rx_count_ - told_fwd_);
  if (told_fwd_ != fwd_count_ && known_room < options_.buf_alloc / 2) due_ |= kCreditUpdate;
  if (may_read() && credit() < needed_ && !std::exchange(asked_credit_, true)) {
    due_ |= kCreditRequest;
  }
}

bool VsockConnection::has_packet() const {
  if ((due_ & kOpening) != 0) return true;
  if (phase_ != Phase::kOpen) return false;
  return due_ != 0 || host_shut_ != told_shut_ || (may_read() && credit() >= needed_);
}

uint32_t VsockConnection::write_header(const ChainBuffers& room, uint16_t op, uint32_t length,
                                       uint32_t flags) {
  const VsockHeader header{
      .src_cid = 2,
      .dst_cid = options_.guest_cid,
      .src_port = options_.ports.host,
      .dst_port = options_.ports.guest,
      .len = length,
      .type = static_cast<uint16_t>(options_.seqpacket ? VIRTIO_VSOCK_TYPE_SEQPACKET
                                                       : VIRTIO_VSOCK_TYPE_STREAM),
      .op = op,
      .flags = flags,
      .buf_alloc = options_.buf_alloc,
      .fwd_cnt = fwd_count_};
  CHECK(room.write(0, header).has_value());
  told_fwd_ = fwd_count_;
  due_ &= ~kCreditUpdate;  // each packet is one
  return static_cast<uint32_t>(kHeader + length);
}

uint32_t VsockConnection::sent_data(const ChainBuffers& room, uint32_t length, uint32_t flags) {
  tx_count_ += length;
  return write_header(room, VIRTIO_VSOCK_OP_RW, length, flags);
}

Result<uint32_t> VsockConnection::write_packet(const ChainBuffers& room, VsockStaging& staging) {
  if (room.size() < kHeader) return 0;
  if ((due_ & kOpening) != 0) {
    due_ &= ~kOpening;
    return write_header(
        room, options_.from_host ? VIRTIO_VSOCK_OP_REQUEST : VIRTIO_VSOCK_OP_RESPONSE, 0, 0);
  }
  if (phase_ != Phase::kOpen) return 0;
  if (staging.owner == this) return write_piece(room, staging);
  if (may_read() && room.size() > kHeader && credit() >= needed_) {
    const uint32_t written =
        options_.seqpacket ? TRY(write_message(room, staging)) : TRY(write_stream(room));
    update_due();
    if (written > 0) return written;
  }
  if ((due_ & kCreditUpdate) != 0) {
    return write_header(room, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0);
  }
  if ((due_ & kCreditRequest) != 0) {
    due_ &= ~kCreditRequest;
    return write_header(room, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0, 0);
  }
  if (host_shut_ != told_shut_) {
    told_shut_ = host_shut_;
    if (told_shut_ == kBoth) {
      loop_.unwatch(watch_);
      socket_ = {};
    }
    return write_header(room, VIRTIO_VSOCK_OP_SHUTDOWN, 0, told_shut_);
  }
  return 0;
}

Result<uint32_t> VsockConnection::write_stream(const ChainBuffers& room) {
  const auto length = static_cast<uint32_t>(std::min<uint64_t>(room.size() - kHeader, credit()));
  const Received got = TRY(receive(socket_, room, length));
  if (got.bytes > 0) return sent_data(room, static_cast<uint32_t>(got.bytes), 0);
  if (got.bytes < 0 && errno != EAGAIN) return fail(reading_failed());
  readable_ = false;
  if (got.bytes == 0) host_sent_all();
  return 0;
}

Result<uint32_t> VsockConnection::write_message(const ChainBuffers& room, VsockStaging& staging) {
  const Waiting waiting = TRY(look_at_message(socket_));
  if (waiting.what != Waiting::What::kMessage) {
    readable_ = false;
    if (waiting.what == Waiting::What::kEnd) host_sent_all();
    return 0;
  }
  const size_t bytes = waiting.bytes;
  if (bytes > std::min<size_t>(peer_alloc_, kLargestMessage)) {
    return fail(Error(std::errc::message_size,
                      format_text("a message of {} bytes from the host is larger than the guest's "
                                  "room of {}",
                                  bytes, peer_alloc_)));
  }
  // All of it at once, or a message that the guest has in part could wait for another to be read.
  needed_ = std::max<uint32_t>(1, static_cast<uint32_t>(bytes));
  if (credit() < needed_) return 0;
  needed_ = 1;
  staging = {.owner = this, .bytes = std::vector<std::byte>(bytes)};
  iovec all{.iov_base = staging.bytes.data(), .iov_len = bytes};
  const Received got = receive(socket_, std::span(&all, 1));
  if (got.bytes != static_cast<ssize_t>(bytes)) {
    staging.owner = nullptr;
    return fail(reading_failed());
  }
  staging.ends_record = got.ends_record;
  return write_piece(room, staging);
}

Result<uint32_t> VsockConnection::write_piece(const ChainBuffers& room, VsockStaging& staging) {
  const size_t left = staging.bytes.size() - staging.sent;
  const auto length = static_cast<uint32_t>(std::min<uint64_t>(room.size() - kHeader, left));
  if (length == 0 && left > 0) return 0;  // a buffer for headers alone
  TRY(room.write_bytes(kHeader, std::span(staging.bytes).subspan(staging.sent, length)));
  staging.sent += length;
  uint32_t flags = 0;
  if (length == left) {
    flags = VIRTIO_VSOCK_SEQ_EOM;
    if (staging.ends_record) flags |= VIRTIO_VSOCK_SEQ_EOR;
    staging = {};
  }
  return sent_data(room, length, flags);
}

}  // namespace crosvm
