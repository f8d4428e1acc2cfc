#include "devices/console/console_device.h"

#include <fcntl.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "base/user_file.h"

namespace crosvm {
namespace {

// Port 0 has the first two queues, the control queues are next, then come the other ports'.
constexpr uint16_t kControlReceiveq = 2;
constexpr uint16_t kControlTransmitq = 3;

// Fields of the device's state.
constexpr uint32_t kStateDriverRuns = 1;
constexpr uint32_t kStatePorts = 2;  // a PortState for each port

struct PortState {
  ConsolePort::State port;
  uint8_t ready = 0;
  uint8_t due = 0;
  std::array<uint8_t, 6> padding{};
};
static_assert(sizeof(PortState) == 24 && std::has_unique_object_representations_v<PortState>);

bool is_transmitq(uint16_t index) { return index % 2 == 1; }

/// The descriptors of one kind, handed out to the ports that have one.
class Deal {
 public:
  explicit Deal(std::vector<Fd> fds) : fds_(std::move(fds)) {}
  Fd next(bool wanted) { return wanted && next_ < fds_.size() ? std::move(fds_[next_++]) : Fd(); }

 private:
  std::vector<Fd> fds_;
  size_t next_ = 0;
};

/// Says that there are as many descriptors as the configuration names.
Result<void> check_resources(const ConsoleConfig& config, const ConsoleResources& resources) {
  auto count = [&](auto key) {
    return static_cast<size_t>(std::ranges::count_if(
        config.ports, [&](const auto& port) { return (port.*key).has_value(); }));
  };
  if (resources.outputs.size() == count(&ConsolePortConfig::output) &&
      resources.inputs.size() == count(&ConsolePortConfig::input) &&
      resources.sizes.size() == count(&ConsolePortConfig::sizes)) {
    return {};
  }
  return fail(Error::invalid("console: the descriptors do not match the configuration"));
}

}  // namespace

ConsoleDevice::ConsoleDevice(const ConsoleConfig& config, ConsoleResources resources,
                             const DeviceContext& context)
    : events_(context.events) {
  Deal outputs(std::move(resources.outputs));
  Deal inputs(std::move(resources.inputs));
  Deal sizes(std::move(resources.sizes));
  const bool multiport = config.multiport();
  features_ = 1ULL << VIRTIO_CONSOLE_F_EMERG_WRITE;
  if (config.ports.front().sizes) features_ |= 1ULL << VIRTIO_CONSOLE_F_SIZE;
  if (multiport) features_ |= 1ULL << VIRTIO_CONSOLE_F_MULTIPORT;
  config_space_.max_nr_ports = static_cast<uint32_t>(config.ports.size());
  for (const ConsolePortConfig& port : config.ports) {
    ConsolePort::Ends ends{.output = outputs.next(port.output.has_value()),
                           .input = inputs.next(port.input.has_value())};
    add_port(context.loop, port, std::move(ends), sizes.next(port.sizes.has_value()));
    const size_t pairs = multiport && ports_.size() == 1 ? 2 : 1;  // port 0 and control
    for (size_t i = 0; i < pairs; ++i) {
      queue_sizes_.insert(queue_sizes_.end(), config.queue_sizes.begin(), config.queue_sizes.end());
    }
  }
  if (multiport) {
    control_ = std::make_unique<ConsoleControl>(context.loop, context.events, config, ports_);
  }
  for (size_t port = 0; port < sizes_.size(); ++port) {
    if (sizes_[port]) take_sizes(port);
  }
  reset();
}

void ConsoleDevice::add_port(EventLoop& loop, const ConsolePortConfig& config,
                             ConsolePort::Ends ends, Fd sizes) {
  const size_t index = ports_.size();
  ports_.push_back(
      std::make_unique<ConsolePort>(loop, events_, config, std::move(ends), [this, index] {
        if (control_) control_->host_changed(index);
      }));
  sizes_.emplace_back();
  if (!sizes) return;
  sizes_.back() = std::make_unique<PortInput>(loop, std::move(sizes), *config.sizes,
                                              [this, index] { take_sizes(index); });
}

uint32_t ConsoleDevice::device_type() const { return VIRTIO_ID_CONSOLE; }

std::span<const std::byte> ConsoleDevice::config_space() const {
  static_assert(sizeof(ConfigSpace) == sizeof(virtio_console_config));
  return std::as_bytes(std::span(&config_space_, 1));
}

void ConsoleDevice::write_config(size_t offset, std::span<const std::byte> data) {
  // The low byte is the character (§5.3.4); the other fields are not the driver's.
  if (offset == offsetof(ConfigSpace, emerg_wr) && !data.empty()) {
    ports_[0]->emergency_write(data[0]);
  }
}

void ConsoleDevice::set_features(uint64_t features) {
  // Without control queues nobody says that port 0 is open.
  if ((features & 1ULL << VIRTIO_CONSOLE_F_MULTIPORT) == 0) ports_[0]->set_guest_open(true);
}

bool ConsoleDevice::is_control(uint16_t index) const {
  return index == kControlReceiveq || index == kControlTransmitq;
}

ConsolePort& ConsoleDevice::port_of(uint16_t index) {
  return *ports_[index < kControlReceiveq ? 0 : index / 2 - 1];
}

Result<void> ConsoleDevice::start_queue(uint16_t index, Virtqueue queue) {
  driver_runs_ = true;
  show_size();
  if (is_control(index)) {
    QueueTurns& control = is_transmitq(index) ? control_->transmitq() : control_->receiveq();
    return control.start(std::move(queue));
  }
  ConsolePort& port = port_of(index);
  return is_transmitq(index) ? port.start_transmitq(std::move(queue))
                             : port.receiveq().start(std::move(queue));
}

void ConsoleDevice::stop_queue(uint16_t index, StopDone done) {
  if (is_control(index)) {
    done((is_transmitq(index) ? control_->transmitq() : control_->receiveq()).stop());
  } else if (is_transmitq(index)) {
    done(port_of(index).stop_transmitq());
  } else {
    done(port_of(index).receiveq().stop());
  }
}

void ConsoleDevice::reset() {
  for (auto& port : ports_) port->reset();
  if (control_) control_->reset();
  if (!control_) ports_[0]->set_guest_open(true);
  driver_runs_ = false;
  show_size();
}

void ConsoleDevice::save_state(DeviceFields& to) const {
  to.set(kStateDriverRuns, static_cast<uint8_t>(driver_runs_));
  std::vector<PortState> ports;
  for (size_t i = 0; i < ports_.size(); ++i) {
    PortState& port = ports.emplace_back();
    port.port = ports_[i]->state();
    if (!control_) continue;
    port.ready = control_->state(i).ready;
    port.due = control_->state(i).due;
  }
  to.set_bytes(kStatePorts, std::as_bytes(std::span(ports)));
}

Result<void> ConsoleDevice::load_state(const DeviceFields& from) {
  TRY(from.expect_only({kStateDriverRuns, kStatePorts}));
  const auto runs = TRY(from.get<uint8_t>(kStateDriverRuns));
  const std::span<const std::byte> bytes = TRY(from.get_bytes(kStatePorts));
  std::vector<PortState> ports(ports_.size());
  if (bytes.size() != std::as_bytes(std::span(ports)).size()) {
    return fail(
        Error::invalid(format_text("the saved console has {} bytes about ports, not {} "
                                   "ports like this one",
                                   bytes.size(), ports_.size())));
  }
  std::memcpy(ports.data(), bytes.data(), bytes.size());
  driver_runs_ = runs != 0;
  for (size_t i = 0; i < ports.size(); ++i) {
    ports_[i]->set_state(ports[i].port);
    if (control_) control_->set_state(i, {.ready = ports[i].ready, .due = ports[i].due});
  }
  show_size();
  return {};
}

/// Drivers take the size from the configuration when its change is notified, and only then: Linux
/// never looks at it while it sets the device up. So it is not shown (0) until a driver runs, and
/// this is the change that the driver hears of. From DRIVER_OK on no notification is lost, even
/// when the console is not made yet: Linux delivers what came during its probe at the end of it.
void ConsoleDevice::show_size() {
  const ConsoleSize shown = driver_runs_ ? size_ : ConsoleSize();
  if (shown == ConsoleSize{.cols = config_space_.cols, .rows = config_space_.rows}) return;
  config_space_.cols = shown.cols;
  config_space_.rows = shown.rows;
  events_.config_changed();
}

void ConsoleDevice::take_sizes(size_t port) {
  std::array<ConsoleSize, 64> records;
  std::optional<ConsoleSize> last;
  while (auto got = sizes_[port]->read(std::as_writable_bytes(std::span(records)))) {
    if (*got == 0) break;
    const size_t whole = *got / sizeof(ConsoleSize);
    if (whole > 0) last = records[whole - 1];
  }
  if (!last) return;
  if (control_) control_->resize(port, *last);
  if (port != 0) return;
  size_ = *last;
  show_size();
}

Result<ConsoleResources> ConsoleFactory::open(const Config& config) {
  constexpr int kBoth = O_NONBLOCK | O_NOCTTY;
  ConsoleResources resources;
  for (const ConsolePortConfig& port : config.ports) {
    if (port.output) {
      resources.outputs.push_back(
          TRY(open_user_file(*port.output, O_WRONLY | O_APPEND | O_CREAT | kBoth)));
    }
    if (port.input) resources.inputs.push_back(TRY(open_user_input(*port.input)));
    if (port.sizes) resources.sizes.push_back(TRY(open_path(*port.sizes, O_RDONLY | kBoth)));
  }
  return resources;
}

Result<std::unique_ptr<VirtioDevice>> ConsoleFactory::create(const Config& config,
                                                             Resources resources,
                                                             const DeviceContext& context) {
  TRY(check_resources(config, resources));
  return std::make_unique<ConsoleDevice>(config, std::move(resources), context);
}

}  // namespace crosvm
