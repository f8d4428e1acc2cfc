#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "devices/console/console_config.h"
#include "devices/console/console_control.h"
#include "devices/console/console_port.h"
#include "virtio/device_factory.h"
#include "virtio/virtio_device.h"

namespace crosvm {

/// What a console device lives on: of each list one descriptor for each port whose configuration
/// has that key, in order.
struct ConsoleResources {
  std::vector<Fd> outputs;
  std::vector<Fd> inputs;
  std::vector<Fd> sizes;
  template <class V>
  void visit(V&& each) {
    each(outputs);
    each(inputs);
    each(sizes);
  }
};

/// Console device (virtio 1.3 §5.3, devices.md 6.3).
class ConsoleDevice : public VirtioDevice {
 public:
  ConsoleDevice(const ConsoleConfig& config, ConsoleResources resources,
                const DeviceContext& context);

  uint32_t device_type() const override;
  std::span<const uint16_t> queue_sizes() const override { return queue_sizes_; }
  uint64_t device_features() const override { return features_; }
  std::span<const std::byte> config_space() const override;
  void write_config(size_t offset, std::span<const std::byte> data) override;
  void set_features(uint64_t features) override;
  Result<void> start_queue(uint16_t index, Virtqueue queue) override;
  void stop_queue(uint16_t index, StopDone done) override;
  void reset() override;
  void save_state(DeviceFields& to) const override;
  Result<void> load_state(const DeviceFields& from) override;

 private:
  /// The device configuration, virtio 1.3 §5.3.4.
  struct ConfigSpace {
    uint16_t cols = 0;
    uint16_t rows = 0;
    uint32_t max_nr_ports = 1;
    uint32_t emerg_wr = 0;
  };

  void add_port(EventLoop& loop, const ConsolePortConfig& config, ConsolePort::Ends ends, Fd sizes);
  /// Takes what the terminal says of its size.
  void take_sizes(size_t port);
  /// Brings the size in the configuration up to date.
  void show_size();
  /// Port of a queue that is no control queue.
  ConsolePort& port_of(uint16_t index);
  bool is_control(uint16_t index) const;

  DeviceEvents& events_;
  uint64_t features_ = 0;
  std::vector<uint16_t> queue_sizes_;
  ConfigSpace config_space_;
  ConsoleSize size_;          // of port 0's terminal
  bool driver_runs_ = false;  // a queue has started since the last reset
  std::vector<std::unique_ptr<ConsolePort>> ports_;
  std::unique_ptr<ConsoleControl> control_;        // null with one port without a name
  std::vector<std::unique_ptr<PortInput>> sizes_;  // of each port; may be null
};

struct ConsoleFactory {
  static constexpr std::string_view kName = "console";
  static constexpr std::string_view kPolicy = "serial_device";
  using Config = ConsoleConfig;
  using Resources = ConsoleResources;
  static Result<Config> parse(const KeyValues& text) { return parse_console_config(text); }
  /// Opens the paths of `config`, none of which is waited for.
  static Result<Resources> open(const Config& config);
  static size_t rings(const Config&) { return 0; }
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources resources,
                                                      const DeviceContext& context);
};
static_assert(DeviceFactory<ConsoleFactory>);

}  // namespace crosvm
