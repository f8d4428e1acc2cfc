#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "pci/pci_address.h"
#include "pci/pci_device.h"
#include "platform/bus.h"

namespace crosvm {

/// Hands out naturally aligned runs of an address window, lowest first.
class AddressAllocator {
 public:
  AddressAllocator(uint64_t base, uint64_t end) : next_(base), end_(end) {}
  /// Errors: no_space_on_device naming the size.
  Result<uint64_t> allocate(uint64_t size);

 private:
  uint64_t next_;
  uint64_t end_;  // first address behind the window
};

/// Where BARs go (platform.md 1.1): prefetchable 64-bit ones high, falling back to low; all others
/// low.
struct PciWindows {
  AddressAllocator low_mmio;
  AddressAllocator high_mmio;
  AddressAllocator io;
};

/// The PCI functions of a VM by address, their configuration space, and the place of their BARs on
/// the buses. Thread-safe.
class PciRoot {
 public:
  /// Both buses must outlive this. 00:00.0 is the host bridge 8086:1237.
  PciRoot(Bus& mmio, Bus& io, PciWindows windows);
  ~PciRoot();

  /// Keeps an address for a function that `add_reserved` brings: `wanted`, or the next free slot of
  /// bus 0. So that nobody gets an address that a later one was promised, those with a wish come
  /// first. `label` names the function in errors: address_in_use, naming both, invalid_argument for
  /// a bus that does not exist, no_space_on_device.
  Result<PciAddress> reserve(std::optional<PciAddress> wanted, const std::string& label);
  /// Adds `device` at `wanted`, or in the next free slot of bus 0; gives its BARs addresses.
  /// Errors: address_in_use naming both devices, no_space_on_device.
  Result<PciAddress> add(std::shared_ptr<PciDevice> device, std::optional<PciAddress> wanted);
  /// The same at an address that `reserve` gave, which is used up.
  Result<void> add_reserved(std::shared_ptr<PciDevice> device, PciAddress reserved);

  /// Whether a function is at `address`, or has it reserved.
  bool has(PciAddress address) const;

  /// Reads up to 4 bytes at `offset` (0..3) of a register; all ones where nothing is.
  void config_read(PciAddress address, size_t index, size_t offset, std::span<std::byte> data);
  void config_write(PciAddress address, size_t index, size_t offset,
                    std::span<const std::byte> data);

  std::vector<PciAddress> addresses() const;
  /// What 0x60/0x64 of the host bridge answer: the ECAM base (devices.md 3.1).
  void announce_ecam(uint64_t base);

 private:
  class BarWindow;
  struct Mapped {
    uint64_t address;
    bool io;
  };
  struct Function {
    std::shared_ptr<PciDevice> device;
    /// Held while a BAR is accessed. Shared with those on the bus, which may outlast a move.
    std::shared_ptr<std::mutex> bar_lock = std::make_shared<std::mutex>();
    std::map<size_t, Mapped> mapped{};  // BARs that are on a bus now
  };

  Result<void> insert(std::shared_ptr<PciDevice> device, PciAddress address);
  Result<void> place_bars(PciDevice& device);
  /// The header's multi-function bit stands in all functions of a slot when any but 0 exists.
  void set_multifunction(PciAddress slot);
  /// Brings the buses in line with the command register and the BARs after a write. Where a BAR
  /// went away, one that it kept from being decoded takes its place.
  void follow(Function& function);
  /// Does so for one function; true when a BAR was taken off a bus.
  bool update_mappings(Function& function);
  /// The same for one BAR.
  bool update_mapping(Function& function, size_t bar);
  Result<PciAddress> choose(std::string_view label, std::optional<PciAddress> wanted) const;
  /// Who has or is to get the address, if anybody.
  std::optional<std::string> holder(PciAddress address) const;

  Bus& mmio_;
  Bus& io_;
  PciWindows windows_;
  mutable std::mutex mutex_;
  std::map<PciAddress, Function> functions_;
  std::map<PciAddress, std::string> reserved_;  // labels
};

}  // namespace crosvm
