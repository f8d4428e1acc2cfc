#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/log_limit.h"
#include "devices/net/net_filter.h"
#include "virtio/device_state.h"
#include "virtio/virtqueue.h"

namespace crosvm {

/// The control queue of a network card (virtio 1.3 §5.1.6.5), and what the driver has set up by it.
class NetControl {
 public:
  /// What the commands do to the card. Each is called with every change, also that of a reset.
  struct Actions {
    std::function<void(const NetFilter& filter)> filter;
    std::function<void(const MacAddress& mac)> mac;   ///< what the configuration shows
    std::function<void(uint16_t pairs)> pairs;        ///< the first so many are used
    std::function<void(uint64_t offloads)> offloads;  ///< of kNetGuestOffloads
    std::function<void()> announced;                  ///< the driver has announced itself
    /// A command has been carried out, and the driver does not know yet.
    std::function<void()> obeyed = [] {};
  };
  /// `mac` is the card's address, `most_pairs` how many queue pairs it has.
  NetControl(const MacAddress& mac, uint16_t most_pairs, Actions actions);

  /// A turn of the control queue: takes a bounded number of commands, and returns whether there may
  /// be more. Errors: the ring is malformed.
  Result<bool> serve(Virtqueue& queue);
  /// Takes one command, which is the caller's to give back when all of its actions have had their
  /// effect. Nothing: there is none now. Errors: the ring is malformed.
  Result<std::optional<UsedChain>> take(Virtqueue& queue);
  /// As VirtioDevice's.
  void set_features(uint64_t features);
  void reset();
  void save_state(DeviceFields& to) const;
  /// Errors: the fields are no such state; nothing has changed.
  Result<void> load_state(const DeviceFields& from);
  /// The tags of its fields: 1 to 15 are its own.
  static constexpr uint32_t kTagFilter = 1;
  static constexpr uint32_t kTagPairs = 2;
  static constexpr uint32_t kTagOffloads = 3;

  uint64_t features() const { return features_; }
  uint16_t pairs() const { return pairs_; }

 private:
  Result<uint32_t> answer(const DescriptorChain& chain);
  // Each reads its data, which begins behind class and command, and returns whether it was right.
  bool handle(uint8_t kind, uint8_t command, const ChainBuffers& data);
  bool handle_mode(uint8_t command, const ChainBuffers& data);
  bool handle_mac(uint8_t command, const ChainBuffers& data);
  bool handle_table(const ChainBuffers& data);
  bool handle_vlan(uint8_t command, const ChainBuffers& data);
  bool handle_pairs(uint8_t command, const ChainBuffers& data);
  bool handle_offloads(uint8_t command, const ChainBuffers& data);
  bool has(unsigned feature) const { return (features_ & net_feature(feature)) != 0; }
  uint64_t offloads() const;
  void show_mac() const;
  void apply_all();

  const MacAddress mac_;
  const uint16_t most_pairs_;
  const Actions actions_;
  LogLimit limit_{"network control commands"};
  uint64_t features_ = 0;
  NetFilter filter_;
  uint16_t pairs_ = 1;
  std::optional<uint64_t> chosen_offloads_;  // none: all that were negotiated
};

}  // namespace crosvm
