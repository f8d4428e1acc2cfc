#include "pci/pci_config_space.h"

#include <linux/pci_regs.h>

#include <bit>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

constexpr size_t kCommandRegister = PCI_COMMAND / 4;
constexpr size_t kFirstBarRegister = PCI_BASE_ADDRESS_0 / 4;

constexpr uint32_t with_byte(uint32_t value, size_t byte, uint32_t to) {
  return (value & ~(0xffU << (8 * byte))) | to << (8 * byte);
}

uint32_t type_bits(const PciBar& bar) {
  switch (bar.kind) {
    case PciBar::Kind::kIo:
      return PCI_BASE_ADDRESS_SPACE_IO;
    case PciBar::Kind::kMemory32:
      return bar.prefetchable ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0;
    case PciBar::Kind::kMemory64:
      break;
  }
  return PCI_BASE_ADDRESS_MEM_TYPE_64 | (bar.prefetchable ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0U);
}

}  // namespace

PciConfigSpace::PciConfigSpace(const PciIdentity& identity) {
  registers_[PCI_VENDOR_ID / 4] = identity.vendor | static_cast<uint32_t>(identity.device) << 16;
  registers_[PCI_REVISION_ID / 4] = identity.revision |
                                    static_cast<uint32_t>(identity.programming_interface) << 8 |
                                    static_cast<uint32_t>(identity.subclass) << 16 |
                                    static_cast<uint32_t>(identity.class_code) << 24;
  registers_[PCI_SUBSYSTEM_VENDOR_ID / 4] =
      identity.subsystem_vendor | static_cast<uint32_t>(identity.subsystem) << 16;
  writable_[kCommandRegister] = 0xffff;
  writable_[PCI_CACHE_LINE_SIZE / 4] = 0xff;
  writable_[PCI_INTERRUPT_LINE / 4] = 0xff;
}

Result<void> PciConfigSpace::add_bar(size_t index, const PciBar& bar) {
  uint64_t smallest = bar.kind == PciBar::Kind::kIo ? 4 : 16;
  bool wide = bar.kind == PciBar::Kind::kMemory64;
  auto taken = [this](size_t i) {  // also by the upper half of a 64-bit one
    return bars_[i] || (i > 0 && bars_[i - 1] && bars_[i - 1]->kind == PciBar::Kind::kMemory64);
  };
  if (index + (wide ? 1 : 0) >= kBars || taken(index) || (wide && taken(index + 1))) {
    return fail(Error::invalid(format_text("PCI BAR {} is not free", index)));
  }
  if (!std::has_single_bit(bar.size) || bar.size < smallest || (!wide && bar.size > 1ULL << 31)) {
    return fail(Error::invalid(format_text("PCI BAR {} cannot have {} bytes", index, bar.size)));
  }
  bars_[index] = bar;
  uint64_t mask = ~(bar.size - 1);
  registers_[kFirstBarRegister + index] = type_bits(bar);
  writable_[kFirstBarRegister + index] = static_cast<uint32_t>(mask);
  if (wide) writable_[kFirstBarRegister + index + 1] = static_cast<uint32_t>(mask >> 32);
  registers_[kCommandRegister] |=
      bar.kind == PciBar::Kind::kIo ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
  return {};
}

Result<uint8_t> PciConfigSpace::add_capability(uint8_t id, std::span<const std::byte> body,
                                               std::span<const std::byte> writable) {
  CHECK(writable.size() <= body.size());
  size_t offset = capabilities_end_;
  size_t length = (2 + body.size() + 3) / 4 * 4;
  if (offset + length > 4 * kRegisters) {
    return fail(Error(std::errc::no_space_on_device,
                      format_text("PCI capability {:#x} does not fit in configuration space", id)));
  }
  auto put = [this](size_t at, uint32_t byte) {
    registers_[at / 4] = with_byte(registers_[at / 4], at % 4, byte);
  };
  put(offset, id);
  for (size_t i = 0; i < body.size(); ++i) put(offset + 2 + i, std::to_integer<uint32_t>(body[i]));
  for (size_t i = 0; i < writable.size(); ++i) {
    const size_t at = offset + 2 + i;
    writable_[at / 4] =
        with_byte(writable_[at / 4], at % 4, std::to_integer<uint32_t>(writable[i]));
  }
  put(last_capability_ == 0 ? PCI_CAPABILITY_LIST : last_capability_ + 1U,
      static_cast<uint32_t>(offset));
  registers_[kCommandRegister] |= static_cast<uint32_t>(PCI_STATUS_CAP_LIST) << 16;
  if (id == PCI_CAP_ID_MSIX) msix_register_ = offset / 4;
  last_capability_ = static_cast<uint8_t>(offset);
  capabilities_end_ = offset + length;
  return last_capability_;
}

void PciConfigSpace::set_multifunction(bool on) {
  uint32_t& header = registers_[PCI_CACHE_LINE_SIZE / 4];
  header = on ? header | 0x80U << 16 : header & ~(0x80U << 16);
}

void PciConfigSpace::set_interrupt(uint8_t pin, uint8_t line) {
  uint32_t& interrupt = registers_[PCI_INTERRUPT_LINE / 4];
  interrupt = with_byte(with_byte(interrupt, 0, line), 1, pin);
}

void PciConfigSpace::write(size_t index, size_t offset, std::span<const std::byte> data) {
  size_t size = data.size();
  bool aligned = (size == 1 || size == 2 || size == 4) && offset % size == 0 && offset + size <= 4;
  bool allowed = index != msix_register_ || (size == 2 && offset == PCI_MSIX_FLAGS);
  if (!aligned || !allowed || index >= kRegisters) {
    log::debug("PCI: ignored a write of {} bytes at configuration offset {:#x}", size,
               4 * index + offset);
    return;
  }
  uint32_t value = 0;
  uint32_t touched = 0;
  for (size_t i = 0; i < size; ++i) {
    value |= std::to_integer<uint32_t>(data[i]) << (8 * (offset + i));
    touched |= 0xffU << (8 * (offset + i));
  }
  uint32_t mask = writable_[index] & touched;
  registers_[index] = (registers_[index] & ~mask) | (value & mask);
}

uint64_t PciConfigSpace::bar_address(size_t index) const {
  size_t at = kFirstBarRegister + index;
  uint64_t address = registers_[at] & writable_[at];
  if (bars_[index] && bars_[index]->kind == PciBar::Kind::kMemory64) {
    address |= static_cast<uint64_t>(registers_[at + 1]) << 32;
  }
  return address;
}

void PciConfigSpace::set_bar_address(size_t index, uint64_t address) {
  size_t at = kFirstBarRegister + index;
  registers_[at] =
      (registers_[at] & ~writable_[at]) | (static_cast<uint32_t>(address) & writable_[at]);
  if (bars_[index] && bars_[index]->kind == PciBar::Kind::kMemory64) {
    registers_[at + 1] = static_cast<uint32_t>(address >> 32);
  }
}

bool PciConfigSpace::decodes(PciBar::Kind kind) const {
  uint32_t bit = kind == PciBar::Kind::kIo ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
  return (registers_[kCommandRegister] & bit) != 0;
}

}  // namespace crosvm
