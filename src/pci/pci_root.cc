#include "pci/pci_root.h"

#include <algorithm>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

// What a BAR takes of its window at least (platform.md 1.1). Two functions never share a page, so
// that a guest can hand one of them to somebody it does not trust.
constexpr uint64_t kSmallestMmio = 0x1000;
constexpr uint64_t kSmallestIo = 0x400;

class HostBridge : public PciDevice {
 public:
  std::string_view label() const override { return "PCI host bridge"; }
  PciConfigSpace& config() override { return config_; }
  void read_bar(size_t, uint64_t, std::span<std::byte>) override {}
  void write_bar(size_t, uint64_t, std::span<const std::byte>) override {}

 private:
  // 440FX, which guests know; bridge, host.
  PciConfigSpace config_{{.vendor = 0x8086, .device = 0x1237, .class_code = 0x06}};
};

}  // namespace

Result<uint64_t> AddressAllocator::allocate(uint64_t size) {
  uint64_t base = (next_ + size - 1) & ~(size - 1);
  if (base < next_ || base >= end_ || end_ - base < size) {
    return fail(Error(std::errc::no_space_on_device,
                      format_text("no room for a PCI BAR of {:#x} bytes", size)));
  }
  next_ = base + size;
  return base;
}

/// A BAR as a device of the bus, whose lock is one for each BAR and place; `lock` is the
/// function's.
class PciRoot::BarWindow : public BusDevice {
 public:
  BarWindow(std::shared_ptr<PciDevice> device, std::shared_ptr<std::mutex> lock, size_t bar)
      : device_(std::move(device)), lock_(std::move(lock)), bar_(bar) {}
  std::string_view label() const override { return device_->label(); }
  void read(uint64_t offset, std::span<std::byte> data) override {
    std::lock_guard serialised(*lock_);
    device_->read_bar(bar_, offset, data);
  }
  void write(uint64_t offset, std::span<const std::byte> data) override {
    std::lock_guard serialised(*lock_);
    device_->write_bar(bar_, offset, data);
  }

 private:
  std::shared_ptr<PciDevice> device_;
  std::shared_ptr<std::mutex> lock_;
  size_t bar_;
};

PciRoot::PciRoot(Bus& mmio, Bus& io, PciWindows windows) : mmio_(mmio), io_(io), windows_(windows) {
  functions_.emplace(PciAddress{}, Function{.device = std::make_shared<HostBridge>()});
}

PciRoot::~PciRoot() {
  for (auto& [address, function] : functions_) {
    for (auto& [bar, place] : function.mapped) {
      (place.io ? io_ : mmio_).remove(place.address);
      function.device->bar_mapped(bar, std::nullopt);
    }
  }
}

std::optional<std::string> PciRoot::holder(PciAddress address) const {
  if (auto found = functions_.find(address); found != functions_.end()) {
    return std::string(found->second.device->label());
  }
  if (auto found = reserved_.find(address); found != reserved_.end()) return found->second;
  return std::nullopt;
}

Result<PciAddress> PciRoot::choose(std::string_view label, std::optional<PciAddress> wanted) const {
  if (wanted && wanted->bus != 0) {
    return fail(Error::invalid(format_text(
        "{}: PCI address {}: there is no bus {:x}; choose an address of bus 0, or leave "
        "the choice to crosvm",
        label, wanted->to_string(), wanted->bus)));
  }
  if (wanted) {
    std::optional<std::string> taken = holder(*wanted);
    if (!taken) return *wanted;
    return fail(Error(std::errc::address_in_use,
                      format_text("{}: PCI address {} is taken by {}; choose another", label,
                                  wanted->to_string(), *taken)));
  }
  // A whole slot if there is one, then single functions.
  for (uint8_t function = 0; function < 8; ++function) {
    for (uint8_t slot = 1; slot < 32; ++slot) {
      PciAddress address{.bus = 0, .device = slot, .function = function};
      if (!holder(address)) return address;
    }
  }
  return fail(Error(
      std::errc::no_space_on_device,
      format_text("{}: all PCI addresses of bus 0 are taken; give the VM fewer devices", label)));
}

Result<void> PciRoot::place_bars(PciDevice& device) {
  PciConfigSpace& config = device.config();
  for (size_t i = 0; i < PciConfigSpace::kBars; ++i) {
    std::optional<PciBar> bar = config.bar(i);
    if (!bar) continue;
    Result<uint64_t> address = fail(Error(std::errc::no_space_on_device, ""));
    if (bar->kind == PciBar::Kind::kIo) {
      address = windows_.io.allocate(std::max(bar->size, kSmallestIo));
    } else {
      uint64_t size = std::max(bar->size, kSmallestMmio);
      if (bar->kind == PciBar::Kind::kMemory64 && bar->prefetchable) {
        address = windows_.high_mmio.allocate(size);
      }
      if (!address) address = windows_.low_mmio.allocate(size);
    }
    config.set_bar_address(i, TRY(with_context(std::move(address), device.label())));
  }
  return {};
}

Result<PciAddress> PciRoot::reserve(std::optional<PciAddress> wanted, const std::string& label) {
  std::lock_guard lock(mutex_);
  PciAddress address = TRY(choose(label, wanted));
  reserved_.emplace(address, label);
  return address;
}

bool PciRoot::has(PciAddress address) const {
  std::lock_guard lock(mutex_);
  return holder(address).has_value();
}

Result<PciAddress> PciRoot::add(std::shared_ptr<PciDevice> device,
                                std::optional<PciAddress> wanted) {
  std::lock_guard lock(mutex_);
  PciAddress address = TRY(choose(device->label(), wanted));
  TRY(insert(std::move(device), address));
  return address;
}

Result<void> PciRoot::add_reserved(std::shared_ptr<PciDevice> device, PciAddress reserved) {
  std::lock_guard lock(mutex_);
  CHECK(reserved_.erase(reserved) == 1);
  return insert(std::move(device), reserved);
}

Result<void> PciRoot::insert(std::shared_ptr<PciDevice> device, PciAddress address) {
  TRY(place_bars(*device));
  Function& function = functions_[address];
  function.device = std::move(device);
  set_multifunction(address);
  update_mappings(function);
  return {};
}

void PciRoot::set_multifunction(PciAddress slot) {
  auto same_slot = [slot](const auto& entry) {
    return entry.first.bus == slot.bus && entry.first.device == slot.device;
  };
  bool many = std::ranges::any_of(
      functions_, [&](const auto& entry) { return same_slot(entry) && entry.first.function != 0; });
  for (auto& entry : functions_) {
    if (same_slot(entry)) entry.second.device->config().set_multifunction(many);
  }
}

void PciRoot::follow(Function& function) {
  if (!update_mappings(function)) return;
  for (auto& [address, waiting] : functions_) update_mappings(waiting);
}

bool PciRoot::update_mappings(Function& function) {
  bool removed = false;
  for (size_t bar = 0; bar < PciConfigSpace::kBars; ++bar) {
    removed |= update_mapping(function, bar);
  }
  return removed;
}

bool PciRoot::update_mapping(Function& function, size_t index) {
  const PciConfigSpace& config = function.device->config();
  const std::optional<PciBar> bar = config.bar(index);
  if (!bar) return false;
  bool removed = false;
  bool io = bar->kind == PciBar::Kind::kIo;
  Bus& bus = io ? io_ : mmio_;
  uint64_t address = config.bar_address(index);
  bool decoded = config.decodes(bar->kind);
  auto now = function.mapped.find(index);
  if (now != function.mapped.end()) {
    if (decoded && now->second.address == address) return false;
    bus.remove(now->second.address);
    function.mapped.erase(now);
    function.device->bar_mapped(index, std::nullopt);
    removed = true;
  }
  if (!decoded) return removed;
  Result<void> placed = bus.insert(
      address, bar->size, std::make_shared<BarWindow>(function.device, function.bar_lock, index));
  if (placed) {
    function.mapped[index] = {.address = address, .io = io};
    function.device->bar_mapped(index, address);
  } else {  // while sizing its BARs, or a guest's mistake: it answers nowhere until one moves
    log::debug("PCI: BAR {} is not decoded: {}", index, placed.error().what());
  }
  return removed;
}

void PciRoot::config_read(PciAddress address, size_t index, size_t offset,
                          std::span<std::byte> data) {
  std::lock_guard lock(mutex_);
  auto found = functions_.find(address);
  bool inside = offset + data.size() <= 4;
  if (found != functions_.end() && inside) found->second.device->config_reading(index);
  uint32_t value =
      found == functions_.end() || !inside ? ~0U : found->second.device->config().read(index);
  for (size_t i = 0; i < data.size(); ++i) {
    data[i] = inside ? static_cast<std::byte>(value >> (8 * (offset + i))) : std::byte{0xff};
  }
}

void PciRoot::config_write(PciAddress address, size_t index, size_t offset,
                           std::span<const std::byte> data) {
  std::lock_guard lock(mutex_);
  auto found = functions_.find(address);
  if (found == functions_.end()) return;
  PciDevice& device = *found->second.device;
  device.config().write(index, offset, data);
  follow(found->second);
  device.config_written(index);
}

std::vector<PciAddress> PciRoot::addresses() const {
  std::lock_guard lock(mutex_);
  std::vector<PciAddress> all;
  for (const auto& [address, function] : functions_) all.push_back(address);
  return all;
}

void PciRoot::announce_ecam(uint64_t base) {
  std::lock_guard lock(mutex_);
  PciConfigSpace& bridge = functions_.at(PciAddress{}).device->config();
  bridge.set_read_only(0x60 / 4, static_cast<uint32_t>(base) | 1);
  bridge.set_read_only(0x64 / 4, static_cast<uint32_t>(base >> 32));
}

}  // namespace crosvm
