#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "devices/net/net_card.h"
#include "devices/net/net_config.h"
#include "devices/net/net_control.h"
#include "devices/net/net_memory.h"
#include "devices/net/net_pair.h"
#include "virtio/device_factory.h"

namespace crosvm {

/// A network card for the guest (virtio 1.3 §5.1; docs/devices/net.md), whatever its ports are
/// connected with. The first queue pair lives on the device's loop, each other on a thread.
class NetDevice : public VirtioDevice {
 public:
  static constexpr uint16_t kQueueSize = 256;
  /// Makes the port of a queue pair, for that loop. Called once for each pair, in order.
  using MakePort = std::function<Result<std::unique_ptr<NetPort>>(EventLoop& loop, size_t pair)>;

  /// Errors: those of making a port, and a thread.
  static Result<std::unique_ptr<NetDevice>> create(const NetConfig& config,
                                                   const MakePort& make_port,
                                                   const DeviceContext& context);
  /// From now on it keeps there what the driver sets up, and goes on with what it finds there.
  void keep_in(NetMemory memory);

  uint32_t device_type() const override;
  std::span<const uint16_t> queue_sizes() const override { return queue_sizes_; }
  uint64_t device_features() const override { return offered_; }
  std::span<const std::byte> config_space() const override { return card_.space(); }
  void set_features(uint64_t features) override;
  Result<void> set_mtu(uint16_t mtu) override;
  Result<void> start_queue(uint16_t index, Virtqueue queue) override;
  void stop_queue(uint16_t index, StopDone done) override;
  void reset() override;
  /// What is on the network's side is no part of it; the driver announces itself where it goes on.
  void save_state(DeviceFields& to) const override;
  Result<void> load_state(const DeviceFields& from) override;

 private:
  NetDevice(const NetConfig& config, const DeviceContext& context);
  Result<void> make_pairs(const MakePort& make_port, const DeviceContext& context);
  NetControl::Actions actions();
  Result<QueueTurns::Turn> serve_commands();
  void give_back_command();
  /// `work(pair)` on the pair's loop: at once for the first.
  void on_pair(size_t index, std::function<void(NetPair&)> work);
  void on_all_pairs(const std::function<void(NetPair&)>& work);
  /// `done` on the device's loop when all pairs have done what they were given so far.
  void after_all_pairs(std::function<void()> done);
  void use_pair(size_t index, bool used);
  void use_pairs(uint16_t count);
  void receiveq_changed(size_t pair, bool runs);
  void use_pairs_that_run();
  void link_changed(size_t pair, bool up);
  bool can_announce() const;
  void announce_if_due();
  void go_on_as_former(uint64_t features);
  void remember();

  const NetConfig config_;
  EventLoop& loop_;
  DeviceEvents& events_;
  const std::vector<uint16_t> queue_sizes_;
  uint64_t offered_ = 0;
  NetCard card_;
  NetControl control_;
  QueueTurns controlq_;
  std::optional<UsedChain> command_;  // answered, and on its way through the pairs
  StopDone control_stopped_;          // waits for that
  std::vector<bool> receives_;        // by pair: its receiveq runs
  bool announce_due_ = false;         // the card goes on where another was
  std::optional<NetMemory> memory_;
  std::optional<DeviceState> former_;  // of the process before, until the driver's features come
  std::unique_ptr<NetPair> first_;
  std::vector<std::unique_ptr<NetThread>> others_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
};

/// The descriptors that a card on a tap lives on.
struct NetResources {
  std::vector<Fd> taps;  ///< one for each queue pair
  Fd memory = {};        ///< of NetMemory, or none
  template <class V>
  void visit(V&& each) {
    each(taps);
    each(memory);
  }
};

/// A card on a tap.
struct NetFactory {
  static constexpr std::string_view kName = "net";
  static constexpr std::string_view kPolicy = "net_device";
  /// A network may lose packets, and deliver them twice.
  static constexpr bool kIdempotent = true;
  using Config = NetConfig;
  using Resources = NetResources;
  static Result<Config> parse(const KeyValues& text) { return NetConfig::parse(text); }
  /// Attaches to the tap of the name `network`, as attach_tap. Errors name it, and what helps.
  static Result<Resources> open(const Config& config);
  static size_t rings(const Config&) { return 0; }
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources resources,
                                                      const DeviceContext& context);
};
static_assert(DeviceFactory<NetFactory>);

}  // namespace crosvm
