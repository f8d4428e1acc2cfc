#pragma once

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/format.h"
#include "hypervisor/fake_vm.h"
#include "hypervisor/msi_routes.h"
#include "pci/interrupt_relay.h"
#include "virtio/virtio_pci.h"

/// The transport between a backend that records and a driver that the test plays.
namespace crosvm::test {

/// A backend that keeps what it is told, and finishes resets when the test says so or at once.
/// Thread-safe.
class FakeBackend : public DeviceBackend {
 public:
  struct Queue {
    uint16_t size = 0;
    VringAddresses addresses{};
    Fd kick;
    Fd call;
    bool enabled = false;
  };

  explicit FakeBackend(DeviceInfo info) : info_(std::move(info)) {
    queues_.resize(info_.queue_sizes.size());
  }

  const DeviceInfo& info() const override { return info_; }
  void set_listener(BackendListener* listener) override { listener_ = listener; }
  void set_features(uint64_t features) override { note(format_text("features {:#x}", features)); }
  void set_memory(const GuestMemory&) override { note("memory"); }
  void set_vring_num(uint16_t index, uint16_t size) override {
    note(format_text("num {} {}", index, size));
    with_queue(index, [&](Queue& queue) { queue.size = size; });
  }
  void set_vring_addr(uint16_t index, const VringAddresses& to) override {
    note(format_text("addr {} {:#x} {:#x} {:#x}", index, to.descriptor_area.value,
                     to.driver_area.value, to.device_area.value));
    with_queue(index, [&](Queue& queue) { queue.addresses = to; });
  }
  void set_vring_base(uint16_t index, RingPosition position) override {
    note(format_text("base {} {} {}", index, position.index, position.wrap_counter));
  }
  void set_vring_kick(uint16_t index, Fd kick) override {
    note(format_text("kick {}", index));
    with_queue(index, [&](Queue& queue) { queue.kick = std::move(kick); });
  }
  void set_vring_call(uint16_t index, Fd call) override {
    note(format_text("call {}", index));
    with_queue(index, [&](Queue& queue) { queue.call = std::move(call); });
  }
  void set_vring_enable(uint16_t index, bool enable) override {
    note(format_text("enable {} {}", index, enable));
    with_queue(index, [&](Queue& queue) { queue.enabled = enable; });
  }
  void get_vring_base(uint16_t index, std::function<void(RingPosition)> done) override {
    note(format_text("stop {}", index));
    finish([this, index, done = std::move(done)] {
      with_queue(index, [](Queue& queue) { queue = {}; });
      done({});
    });
  }
  void reset(std::function<void()> done) override {
    note("reset");
    finish([this, done = std::move(done)] {
      for (size_t i = 0; i < queues_.size(); ++i) {
        with_queue(static_cast<uint16_t>(i), [](Queue& queue) { queue = {}; });
      }
      done();
    });
  }
  void set_config(size_t offset, std::vector<std::byte> data) override {
    note(format_text("config {} {}", offset, data.size()));
  }

  /// From now on what is asked to stop waits for `complete`.
  void hold(bool on) {
    std::lock_guard lock(mutex_);
    held_ = on;
  }
  /// Finishes what waits, in order; returns how many there were.
  size_t complete() {
    std::vector<std::function<void()>> due;
    {
      std::lock_guard lock(mutex_);
      due = std::exchange(waiting_, {});
    }
    for (auto& done : due) done();
    return due.size();
  }
  /// What was called since the last time.
  std::vector<std::string> take_calls() {
    std::lock_guard lock(mutex_);
    return std::exchange(calls_, {});
  }
  /// For the test's thread, with no call under way.
  const Queue& queue(uint16_t index) const { return queues_[index]; }
  BackendListener& listener() { return *listener_; }

 private:
  void note(std::string call) {
    std::lock_guard lock(mutex_);
    calls_.push_back(std::move(call));
  }
  void with_queue(uint16_t index, const std::function<void(Queue&)>& work) {
    std::lock_guard lock(mutex_);
    work(queues_.at(index));
  }
  void finish(std::function<void()> done) {
    {
      std::lock_guard lock(mutex_);
      if (held_) return waiting_.push_back(std::move(done));
    }
    done();
  }

  DeviceInfo info_;
  BackendListener* listener_ = nullptr;
  std::mutex mutex_;
  bool held_ = false;
  std::vector<Queue> queues_;
  std::vector<std::string> calls_;
  std::vector<std::function<void()>> waiting_;
};

inline constexpr uint64_t kDeviceFeature = 1 << 5;
inline constexpr uint64_t kVersion1 = 1ULL << VIRTIO_F_VERSION_1;
inline constexpr uint64_t kRingReset = 1ULL << VIRTIO_F_RING_RESET;
inline constexpr uint32_t kIntxGsi = 10;
inline constexpr uint8_t kAckAndDriver = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
inline constexpr uint8_t kNegotiated = kAckAndDriver | VIRTIO_CONFIG_S_FEATURES_OK;
inline constexpr uint8_t kRunning = kNegotiated | VIRTIO_CONFIG_S_DRIVER_OK;

/// A block device with two queues and 8 bytes of configuration, unless said otherwise.
inline DeviceInfo fake_device() {
  std::vector<std::byte> config;
  for (int i = 1; i <= 8; ++i) config.push_back(static_cast<std::byte>(0x11 * i));
  return {.name = "block0",
          .device_type = 2,
          .features = kDeviceFeature | kVersion1,
          .queue_sizes = {256, 64},
          .config = std::move(config)};
}

class VirtioPciRig {
 public:
  explicit VirtioPciRig(DeviceInfo info = fake_device(), const VirtioPci::Options& options = {}) {
    auto owned = std::make_unique<FakeBackend>(std::move(info));
    backend_ = owned.get();
    device_ = make(std::move(owned), options);
  }
  /// With a backend of the test's own; `backend` is not to be used.
  explicit VirtioPciRig(std::unique_ptr<DeviceBackend> backend)
      : device_(make(std::move(backend), {})) {}

  FakeVm& vm() { return vm_; }
  FakeBackend& backend() { return *backend_; }
  const GuestMemory& memory() const { return memory_; }
  const std::shared_ptr<VirtioPci>& device() { return device_; }

  template <class T>
  T read(uint64_t offset) {
    T value{};
    device_->read_bar(0, offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  template <class T>
  void write(uint64_t offset, T value) {
    device_->write_bar(0, offset, std::as_bytes(std::span(&value, 1)));
  }
  /// As PciRoot does it.
  template <class T>
  T config_read(size_t offset) {
    device_->config_reading(offset / 4);
    return static_cast<T>(device_->config().read(offset / 4) >> (8 * (offset % 4)));
  }
  template <class T>
  void config_write(size_t offset, T value) {
    device_->config().write(offset / 4, offset % 4, std::as_bytes(std::span(&value, 1)));
    device_->config_written(offset / 4);
  }
  /// The offset of the first capability `id`, of virtio's type `type` if it is given; 0: none.
  size_t find_capability(uint8_t id, std::optional<uint8_t> type = {}) {
    for (size_t at = config_read<uint8_t>(0x34); at != 0; at = config_read<uint8_t>(at + 1)) {
      if (config_read<uint8_t>(at) != id) continue;
      if (!type || config_read<uint8_t>(at + 3) == *type) return at;
    }
    return 0;
  }

  // The steps of a driver.
  uint8_t status() { return read<uint8_t>(VIRTIO_PCI_COMMON_STATUS); }
  void set_status(uint8_t status) { write<uint8_t>(VIRTIO_PCI_COMMON_STATUS, status); }
  uint64_t offered() {
    uint64_t features = 0;
    for (uint32_t page : {0U, 1U}) {
      write<uint32_t>(VIRTIO_PCI_COMMON_DFSELECT, page);
      features |= uint64_t{read<uint32_t>(VIRTIO_PCI_COMMON_DF)} << (32 * page);
    }
    return features;
  }
  void accept(uint64_t features) {
    for (uint32_t page : {0U, 1U}) {
      write<uint32_t>(VIRTIO_PCI_COMMON_GFSELECT, page);
      write<uint32_t>(VIRTIO_PCI_COMMON_GF, static_cast<uint32_t>(features >> (32 * page)));
    }
  }
  void select(uint16_t queue) { write<uint16_t>(VIRTIO_PCI_COMMON_Q_SELECT, queue); }
  /// Addresses that tell queues apart: 0x1000, 0x2000, 0x3000 more than 0x10000 times the index.
  void set_up_queue(uint16_t queue, uint16_t size) {
    select(queue);
    write<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE, size);
    for (uint64_t part = 0; part < 3; ++part) {
      write<uint64_t>(VIRTIO_PCI_COMMON_Q_DESCLO + 8 * part,
                      0x10000ULL * queue + 0x1000 * (part + 1));
    }
  }
  void enable_queue(uint16_t queue) {
    select(queue);
    write<uint16_t>(VIRTIO_PCI_COMMON_Q_ENABLE, 1);
  }
  void negotiate(uint64_t features = kVersion1 | kRingReset | kDeviceFeature) {
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
    set_status(kAckAndDriver);
    accept(features);
    set_status(kNegotiated);
  }
  /// From reset to DRIVER_OK with both queues.
  void start_driver() {
    negotiate();
    set_up_queue(0, 128);
    set_up_queue(1, 64);
    enable_queue(0);
    enable_queue(1);
    set_status(kRunning);
  }

  /// Enables MSI-X and unmasks all its vectors; vector v sends kFirstMessage + v.
  static constexpr uint32_t kFirstMessage = 0x4000;
  void enable_msix() {
    const size_t msix = find_capability(0x11);
    const uint16_t vectors = (config_read<uint16_t>(msix + 2) & 0x7ff) + 1;
    for (uint16_t v = 0; v < vectors; ++v) {
      const uint64_t entry = 0x6000 + 16ULL * v;
      write<uint64_t>(entry, 0xfee00000);
      write<uint32_t>(entry + 8, kFirstMessage + v);
      write<uint32_t>(entry + 12, 0);
    }
    config_write<uint16_t>(msix + 2, 0x8000);
  }
  void set_config_vector(uint16_t vector) { write<uint16_t>(VIRTIO_PCI_COMMON_MSIX, vector); }
  void set_queue_vector(uint16_t queue, uint16_t vector) {
    select(queue);
    write<uint16_t>(VIRTIO_PCI_COMMON_Q_MSIX, vector);
  }
  /// The vectors that were sent since the last call.
  std::vector<uint32_t> take_vectors() {
    std::vector<uint32_t> vectors;
    for (const MsiMessage& message : vm_.take_sent()) {
      vectors.push_back(message.data - kFirstMessage);
    }
    return vectors;
  }

 private:
  static GuestMemory make_memory() {
    const RamRange ram[] = {{GuestAddress{0}, 1 << 20}};
    return *GuestMemory::create(ram, {});
  }
  std::shared_ptr<VirtioPci> make(std::unique_ptr<DeviceBackend> backend,
                                  const VirtioPci::Options& options) {
    auto interrupts = PciInterrupts::create({.vm = vm_, .routes = routes_, .relay = *relay_},
                                            VirtioPci::interrupts_for(backend->info(), kIntxGsi));
    CHECK(interrupts.has_value());
    auto made =
        VirtioPci::create(std::move(backend), memory_, vm_, std::move(*interrupts), options);
    CHECK(made.has_value());
    return std::move(*made);
  }

  FakeVm vm_;
  MsiRoutes routes_{vm_, {}, 24};
  std::unique_ptr<InterruptRelay> relay_ = *InterruptRelay::create();
  GuestMemory memory_ = make_memory();
  FakeBackend* backend_ = nullptr;  // device_ owns it
  std::shared_ptr<VirtioPci> device_;
};

}  // namespace crosvm::test
