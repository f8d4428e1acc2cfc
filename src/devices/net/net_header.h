#pragma once

#include <cstdint>

#include "base/result.h"
#include "devices/net/net_abi.h"

namespace crosvm {

/// A header as a port may have it, from one that the driver made for a packet of that many bytes
/// (virtio 1.3 §5.1.6.2): what the driver may not use is cleared, hdr_len, a hint, lies in the
/// packet. `features` are the negotiated ones. Errors: invalid_argument saying what is wrong with
/// the header; the packet cannot be sent.
Result<NetHeader> checked_net_header(NetHeader header, uint64_t packet_bytes, uint64_t features);

/// Whether a driver that negotiated `features` may get a packet with that header (virtio 1.3
/// §5.1.6.4.1).
bool may_be_received(const NetHeader& header, uint64_t features);

}  // namespace crosvm
