#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "devices/vsock/vsock_outbox.h"
#include "devices/vsock/vsock_packet.h"
#include "virtio/descriptor_chain.h"

namespace crosvm {

class VsockConnection;

/// A message of a sequenced-packet socket on its way to the guest, in pieces as large as the
/// driver's buffers. A device has one at a time.
struct VsockStaging {
  const VsockConnection* owner = nullptr;  ///< null: there is none
  std::vector<std::byte> bytes;
  size_t sent = 0;
  bool ends_record = false;
};

/// One connection between a port of the guest and a Unix socket of the host (virtio 1.3 §5.10.6):
/// a state machine that is told what came, and asked for the next packet to the guest. It opens,
/// reads and writes its socket; whoever owns it keeps the ring. All calls on the loop.
///
/// Whatever fails (Result) is over for good: the owner resets the connection.
class VsockConnection {
 public:
  struct Options {
    uint64_t guest_cid = 0;
    VsockPorts ports;
    bool seqpacket = false;
    bool from_host = false;  ///< a program of the host began it
    uint32_t buf_alloc = 0;  ///< bytes that the guest may have on their way to the socket
  };
  /// A message of the host that is larger than this cannot be sent.
  static constexpr size_t kLargestMessage = size_t{1} << 20;

  VsockConnection(EventLoop& loop, const Options& options);
  ~VsockConnection();
  VsockConnection(const VsockConnection&) = delete;
  VsockConnection& operator=(const VsockConnection&) = delete;

  const Options& options() const { return options_; }
  /// Takes the socket, which does not block, and calls `ready(events)` when there is something to
  /// do with it: `socket_ready`. A guest that asked for the connection is told that it stands.
  /// Errors: those of EventLoop::watch.
  Result<void> start(Fd socket, std::function<void(uint32_t events)> ready);
  /// Errors: the socket has failed, as when its peer is gone with what it had not read.
  Result<void> socket_ready(uint32_t events);

  /// What every packet of the guest says of its room.
  void take_credit(const VsockHeader& header);
  /// A packet of the guest for this connection; a REQUEST or RST is not for here. Errors: it breaks
  /// the protocol, or the socket has failed.
  Result<void> take(const VsockHeader& header, const ChainBuffers& chain);

  /// There is something to be sent to the guest, as far as is known.
  bool has_packet() const;
  /// Writes the next packet for the guest. Returns its bytes; 0: there is none after all. Errors:
  /// the socket has failed.
  Result<uint32_t> write_packet(const ChainBuffers& room, VsockStaging& staging);

  /// Neither side has anything to say any more, as the guest has told.
  bool guest_is_done() const { return guest_shut_ == kBoth; }
  /// The host's side is over, and the guest has been told.
  bool host_is_done() const { return !socket_ && told_shut_ == kBoth; }
  /// A connection that the guest is done with lives on until the socket has taken the rest.
  bool has_rest() const { return socket_ && !outbox_.empty(); }
  /// The guest said that it has sent all.
  bool guest_sent_all() const { return (guest_shut_ & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0; }
  /// It was begun, and the other side has not agreed yet.
  bool stands() const { return phase_ == Phase::kOpen; }
  /// The guest knows of it.
  bool was_told() const { return !options_.from_host || (due_ & kOpening) == 0; }

 private:
  static constexpr uint32_t kBoth = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;
  enum class Phase {
    kDialing,  // the guest waits for the host
    kOffered,  // the host waits for the guest
    kOpen,
  };
  /// Packets that are to be sent.
  enum Due : uint32_t { kOpening = 1, kCreditUpdate = 2, kCreditRequest = 4 };

  uint32_t credit() const;
  bool may_read() const;
  Result<void> take_payload(const VsockHeader& header, const ChainBuffers& chain);
  Result<void> take_shutdown(uint32_t flags);
  /// Says what became of sending to the socket.
  Result<void> sent(Result<uint32_t> result);
  void host_reads_no_more();
  void host_sent_all();
  Result<void> watch_for_room();
  void shut_socket_if_sent();
  void update_due();

  uint32_t write_header(const ChainBuffers& room, uint16_t op, uint32_t length, uint32_t flags);
  Result<uint32_t> write_stream(const ChainBuffers& room);
  Result<uint32_t> write_message(const ChainBuffers& room, VsockStaging& staging);
  Result<uint32_t> write_piece(const ChainBuffers& room, VsockStaging& staging);
  uint32_t sent_data(const ChainBuffers& room, uint32_t length, uint32_t flags);

  EventLoop& loop_;
  Options options_;
  Phase phase_;
  Fd socket_;
  EventLoop::WatchId watch_ = 0;
  bool watches_room_ = false;

  // To the guest:
  bool readable_ = false;    // until a read says otherwise
  uint32_t needed_ = 1;      // credit that the next data takes, bytes
  uint32_t peer_alloc_ = 0;  // as the guest said last
  uint32_t peer_fwd_ = 0;
  uint32_t tx_count_ = 0;  // bytes sent, modulo 2^32
  uint32_t due_ = 0;
  bool asked_credit_ = false;  // since there was some

  // From the guest:
  VsockOutbox outbox_;
  bool discards_ = false;   // nobody reads what the guest sends
  uint32_t rx_count_ = 0;   // bytes that came, modulo 2^32
  uint32_t fwd_count_ = 0;  // of them, those that left for the socket
  uint32_t told_fwd_ = 0;   // as the guest knows

  // Who will not receive or send any more (VIRTIO_VSOCK_SHUTDOWN_*):
  uint32_t guest_shut_ = 0;
  uint32_t host_shut_ = 0;
  uint32_t told_shut_ = 0;  // of host_shut_
};

}  // namespace crosvm
