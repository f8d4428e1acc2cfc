#include "virtio/virtio_pci_layout.h"

#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>

#include <algorithm>
#include <bit>
#include <span>

#include "base/format.h"

namespace crosvm::virtio_pci {
namespace {

constexpr uint16_t kVendor = 0x1af4;
constexpr uint16_t kFirstModernDevice = 0x1040;
/// At least a page, so that it can be mapped by itself.
constexpr uint64_t kSmallestSharedBar = 0x1000;
constexpr uint64_t kLargestSharedBar = 1ULL << 62;

struct DeviceClass {
  uint32_t device_type;
  uint8_t class_code;
  uint8_t subclass;
};
// PCI Code and ID Assignment 1.11 §1.
constexpr DeviceClass kClasses[] = {
    {VIRTIO_ID_NET, 0x02, 0x80},
    {VIRTIO_ID_BLOCK, 0x01, 0x80},
    {VIRTIO_ID_CONSOLE, 0x07, 0x80},
    {VIRTIO_ID_RNG, 0x08, 0x80},
    {VIRTIO_ID_BALLOON, 0x08, 0x80},
    {VIRTIO_ID_SCSI, 0x01, 0x00},
    {VIRTIO_ID_9P, 0x02, 0x80},
    {VIRTIO_ID_GPU, 0x03, 0x80},
    {VIRTIO_ID_INPUT, 0x09, 0x80},
    {VIRTIO_ID_VSOCK, 0x02, 0x80},
    {VIRTIO_ID_IOMMU, 0x08, 0x06},
    {VIRTIO_ID_SOUND, 0x04, 0x01},
    {VIRTIO_ID_FS, 0x01, 0x80},
    {VIRTIO_ID_PMEM, 0x01, 0x08},
    {VIRTIO_ID_MAC80211_HWSIM, 0x0d, 0x80},
    {VIRTIO_ID_VIDEO_ENCODER, 0x04, 0x00},
    {VIRTIO_ID_VIDEO_DECODER, 0x04, 0x00},
    {VIRTIO_ID_SCMI, 0x08, 0x80},
    {48 /* media */, 0x04, 0x00},
    {61 /* pvclock */, 0x08, 0x80},
    {62 /* tpm */, 0x08, 0x80},
    {63 /* wl */, 0x03, 0x80},
};
constexpr DeviceClass kUnassigned{0, 0xff, 0x00};  // "does not fit in any defined class"

// PCI 3.0 §6.8.2.
struct MsixCapability {
  uint8_t id = 0;
  uint8_t next = 0;
  uint16_t control = 0;
  uint32_t table = 0;    // offset, the low three bits are the BAR
  uint32_t pending = 0;  // as above
};
// PCI Power Management 1.2 §3.2.
struct PowerManagementCapability {
  uint8_t id = 0;
  uint8_t next = 0;
  uint16_t capabilities = 0;
  uint16_t control = 0;
  uint16_t bridge_and_data = 0;
};
constexpr uint16_t kPowerManagementVersion = 2;

/// Adds a capability given in full but for its next pointer; the guest may write the bits that are
/// set in `writable`.
template <class T>
Result<uint8_t> add(PciConfigSpace& config, const T& capability, const T& writable = {}) {
  constexpr size_t kHeader = 2;  // id and next pointer
  const auto bytes = std::as_bytes(std::span(&capability, 1));
  return config.add_capability(std::to_integer<uint8_t>(bytes[0]), bytes.subspan(kHeader),
                               std::as_bytes(std::span(&writable, 1)).subspan(kHeader));
}

/// The start of every virtio capability (§4.1.4). `whole` is the length of all of it.
virtio_pci_cap header(uint8_t type, size_t whole, const Region& region) {
  return {.cap_vndr = PCI_CAP_ID_VNDR,
          .cap_next = 0,
          .cap_len = static_cast<uint8_t>(whole),
          .cfg_type = type,
          .bar = kBar,
          .id = 0,
          .padding = {},
          .offset = static_cast<uint32_t>(region.offset),
          .length = static_cast<uint32_t>(region.length)};
}

Result<void> add_structures(PciConfigSpace& config) {
  constexpr size_t kPlain = sizeof(virtio_pci_cap);
  TRY(add(config, header(VIRTIO_PCI_CAP_COMMON_CFG, kPlain, kCommon)));
  TRY(add(config, header(VIRTIO_PCI_CAP_ISR_CFG, kPlain, kIsr)));
  TRY(add(config, header(VIRTIO_PCI_CAP_DEVICE_CFG, kPlain, kDeviceConfig)));
  TRY(add(config, virtio_pci_notify_cap{.cap = header(VIRTIO_PCI_CAP_NOTIFY_CFG,
                                                      sizeof(virtio_pci_notify_cap), kNotify),
                                        .notify_off_multiplier = kNotifyMultiplier}));
  return {};
}

/// The window onto BAR 0 (§4.1.4.9): the guest sets bar, offset and length, and reads or writes the
/// data behind them.
Result<uint8_t> add_pci_config(PciConfigSpace& config) {
  virtio_pci_cfg_cap window{.cap = header(VIRTIO_PCI_CAP_PCI_CFG, sizeof(virtio_pci_cfg_cap), {}),
                            .pci_cfg_data = {}};
  virtio_pci_cfg_cap writable{};
  writable.cap.bar = 0xff;
  writable.cap.offset = ~0U;
  writable.cap.length = ~0U;
  std::ranges::fill(writable.pci_cfg_data, 0xff);
  return add(config, window, writable);
}

Result<uint8_t> add_msix(PciConfigSpace& config, uint16_t vectors) {
  return add(config,
             MsixCapability{.id = PCI_CAP_ID_MSIX,
                            .control = static_cast<uint16_t>(vectors - 1),
                            .table = kMsixTable.offset | kBar,
                            .pending = kMsixPending.offset | kBar},
             MsixCapability{.control = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL});
}

Result<uint8_t> add_power_management(PciConfigSpace& config) {
  return add(config,
             PowerManagementCapability{.id = PCI_CAP_ID_PM,
                                       .capabilities = kPowerManagementVersion,
                                       .control = PCI_PM_CTRL_NO_SOFT_RESET},
             PowerManagementCapability{.control = PCI_PM_CTRL_STATE_MASK});
}

Result<void> add_shared_memory(PciConfigSpace& config, const SharedMemory& shared) {
  if (shared.length == 0 || shared.length > kLargestSharedBar) {
    return fail(
        Error::invalid(format_text("a shared memory region cannot have {} bytes", shared.length)));
  }
  TRY(config.add_bar(kSharedMemoryBar,
                     {.kind = PciBar::Kind::kMemory64,
                      .prefetchable = true,
                      .size = std::max(std::bit_ceil(shared.length), kSmallestSharedBar)}));
  virtio_pci_cap64 capability{
      .cap = header(VIRTIO_PCI_CAP_SHARED_MEMORY_CFG, sizeof(virtio_pci_cap64),
                    {.offset = 0, .length = shared.length}),
      .offset_hi = 0,
      .length_hi = static_cast<uint32_t>(shared.length >> 32)};
  capability.cap.bar = kSharedMemoryBar;
  capability.cap.id = shared.id;
  TRY(add(config, capability));
  return {};
}

}  // namespace

PciIdentity identity(uint32_t device_type) {
  const auto* known = std::ranges::find(kClasses, device_type, &DeviceClass::device_type);
  const DeviceClass& of = known == std::end(kClasses) ? kUnassigned : *known;
  const auto device = static_cast<uint16_t>(kFirstModernDevice + device_type);
  return {.vendor = kVendor,
          .device = device,
          .revision = 1,
          .class_code = of.class_code,
          .subclass = of.subclass,
          .subsystem_vendor = kVendor,
          .subsystem = device};
}

Result<CapabilityOffsets> build_config_space(PciConfigSpace& config, uint16_t vectors,
                                             const std::optional<SharedMemory>& shared_memory) {
  TRY(config.add_bar(kBar, {.kind = PciBar::Kind::kMemory32, .size = kBarSize}));
  TRY(add_structures(config));
  CapabilityOffsets offsets;
  offsets.pci_config = TRY(add_pci_config(config));
  offsets.msix = TRY(add_msix(config, vectors));
  offsets.power_management = TRY(add_power_management(config));
  if (shared_memory) TRY(add_shared_memory(config, *shared_memory));
  return offsets;
}

}  // namespace crosvm::virtio_pci
