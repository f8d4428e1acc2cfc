#include "pci/pci_config_access.h"

#include <algorithm>

namespace crosvm {
namespace {

constexpr uint64_t kAddressPort = 0;  // 0xCF8..0xCFB
constexpr uint64_t kResetPort = 1;    // 0xCF9, when written as a single byte
constexpr uint64_t kDataPort = 4;     // 0xCFC..0xCFF
constexpr std::byte kResetBit{1 << 2};

PciAddress function_of(uint64_t ecam_offset) {
  return {.bus = static_cast<uint8_t>(ecam_offset >> 20),
          .device = static_cast<uint8_t>(ecam_offset >> 15 & 0x1f),
          .function = static_cast<uint8_t>(ecam_offset >> 12 & 7)};
}

}  // namespace

PciAddress PciConfigPorts::target() const {
  return {.bus = static_cast<uint8_t>(address_ >> 16),
          .device = static_cast<uint8_t>(address_ >> 11 & 0x1f),
          .function = static_cast<uint8_t>(address_ >> 8 & 7)};
}

void PciConfigPorts::read(uint64_t offset, std::span<std::byte> data) {
  if (offset >= kDataPort && selected()) {
    root_.config_read(target(), register_index(), offset - kDataPort, data);
  } else if (offset < kDataPort && offset + data.size() <= kDataPort) {
    for (size_t i = 0; i < data.size(); ++i) {
      data[i] = static_cast<std::byte>(address_ >> (8 * (offset - kAddressPort + i)));
    }
  } else {
    std::ranges::fill(data, std::byte{0xff});
  }
}

void PciConfigPorts::write(uint64_t offset, std::span<const std::byte> data) {
  if (offset == kResetPort && data.size() == 1) {
    if ((data[0] & kResetBit) != std::byte{0}) reset_();
    return;
  }
  if (offset >= kDataPort) {
    if (selected()) root_.config_write(target(), register_index(), offset - kDataPort, data);
    return;
  }
  if (offset + data.size() > kDataPort) return;
  for (size_t i = 0; i < data.size(); ++i) {
    size_t shift = 8 * (offset + i);
    address_ = (address_ & ~(0xffU << shift)) | std::to_integer<uint32_t>(data[i]) << shift;
  }
}

void PciEcam::read(uint64_t offset, std::span<std::byte> data) {
  size_t index = offset >> 2 & 0x3ff;
  root_.config_read(function_of(offset), index, offset & 3, data);
}

void PciEcam::write(uint64_t offset, std::span<const std::byte> data) {
  size_t index = offset >> 2 & 0x3ff;
  root_.config_write(function_of(offset), index, offset & 3, data);
}

}  // namespace crosvm
