#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/packet_socket.h"
#include "base/result.h"
#include "control/requests.h"
#include "control/responses.h"

namespace crosvm::control {

/// What one packet of the socket may hold: one JSON document, and the descriptors its indices refer
/// to.
constexpr size_t kMaxFdsPerPacket = 32;              // cli.md 4.2
constexpr size_t kMaxPacketBytes = size_t{1} << 20;  // far above any message; ours, bounds a peer
constexpr PacketLimits kPacketLimits{.bytes = kMaxPacketBytes, .fds = kMaxFdsPerPacket};

/// The packet that says `message`, whose descriptors move into it.
Packet encode(Request message);
Packet encode(Response message);

/// The message a packet says; descriptors it does not refer to are closed. Errors: invalid_argument
/// naming the member that is wrong, or the request that is not known.
Result<Request> decode_request(Packet packet);
Result<Response> decode_response(Packet packet);

/// "Powerbtn", for logs.
std::string_view name_of(const Request& request);

/// What clients print after "unexpected response: " (cli.md 4.3.2), and for USB, GPU and battery
/// answers (3.2, 3.3, 3.5).
std::string display(const Response& response);

/// The answer of a VM that lacks what the request is for: the device, or the feature (cli.md 4.4).
/// Nothing for Throttle, which is never answered.
std::optional<Response> answer_without_component(const Request& request);

}  // namespace crosvm::control
