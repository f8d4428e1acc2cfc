#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/key_value.h"
#include "base/result.h"
#include "devices/net/net_abi.h"

namespace crosvm {

/// "02:00:5e:10:00:ff". Errors: invalid_argument.
Result<MacAddress> parse_mac(std::string_view text);
std::string mac_text(const MacAddress& mac);
/// An address of one's own (locally administered, of one card), always the same for the same text:
/// what tells the VM and its card from others.
MacAddress stable_mac(std::string_view text);

/// Whether a card may give a packet several of the driver's buffers, as it does unless that is
/// `asked` otherwise; by a packed queue never. Errors: asked for with a packed queue.
Result<bool> mergeable_buffers(std::optional<bool> asked, bool packed_queue);

/// A network card as its device needs to know it, whatever it is connected with:
/// `network=vmtap0,mac=02:00:00:00:00:01,vq-pairs=2,mtu=1500,mrg-rxbuf=true`.
struct NetConfig {
  static constexpr uint16_t kMostPairs = 256;  ///< as many queues as a tap has

  std::string network;    ///< what it is connected with, for logs
  MacAddress mac{};       ///< the guest's
  uint16_t vq_pairs = 1;  ///< queue pairs
  uint16_t mtu = 0;       ///< bytes; 0: not known, and not told
  bool mrg_rxbuf = true;  ///< a packet may take several of the driver's buffers
  bool packed_queue = false;

  /// Errors: invalid_argument naming the key.
  static Result<NetConfig> parse(const KeyValues& text);
  /// The text that parses to this.
  std::string to_text() const;

  friend bool operator==(const NetConfig&, const NetConfig&) = default;
};

}  // namespace crosvm
