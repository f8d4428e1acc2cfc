#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "virtio/descriptor_chain.h"

namespace crosvm {

/// What a guest has sent on one connection and the host's socket has not taken yet. How much that
/// is, the connection's credit bounds; nothing is kept while the socket takes everything.
class VsockOutbox {
 public:
  /// Of one packet of the guest.
  struct Piece {
    uint64_t offset = 0;  ///< of the payload in its chain
    uint32_t length = 0;
    bool ends_message = false;  ///< VIRTIO_VSOCK_SEQ_EOM
    bool ends_record = false;   ///< VIRTIO_VSOCK_SEQ_EOR
  };

  /// `room`: payload bytes that the guest may have on their way. `seqpacket`: messages keep their
  /// borders, and each is sent when all of it is there.
  VsockOutbox(bool seqpacket, uint32_t room) : seqpacket_(seqpacket), room_(room) {}

  /// Sends a piece of a chain, or keeps it. Returns the payload bytes that left for the socket.
  /// Errors: the errno of sendmsg; no_buffer_space for too many messages without contents;
  /// result_out_of_range for a piece past the chain's end.
  Result<uint32_t> put(const Fd& socket, const ChainBuffers& chain, const Piece& piece);
  /// Sends what is kept, as far as the socket takes it. Returns as above.
  Result<uint32_t> flush(const Fd& socket);

  /// Nothing waits for the socket.
  bool empty() const { return head_ == kept_.size(); }

 private:
  Result<uint32_t> put_stream(const Fd& socket, const ChainBuffers& chain, const Piece& piece);
  Result<uint32_t> put_message(const Fd& socket, const ChainBuffers& chain, const Piece& piece);
  Result<uint32_t> flush_stream(const Fd& socket);
  Result<uint32_t> flush_messages(const Fd& socket);
  /// Room for `bytes` at the end of what is kept.
  std::span<std::byte> extend(size_t bytes);
  void drop(size_t bytes);
  Result<void> keep_message(bool ends_record);

  bool seqpacket_;
  uint32_t room_;
  std::vector<std::byte> kept_;  // from head_; of messages each with its length before it
  size_t head_ = 0;
  std::vector<std::byte> message_;  // one whose end has not come
};

}  // namespace crosvm
