#include "cli/vhost_user_options.h"

#include <linux/virtio_ids.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "base/format.h"
#include "base/key_value.h"
#include "pci/pci_address.h"

namespace crosvm {
namespace {

struct TypeName {
  std::string_view name;
  uint32_t device_type;  // virtio 1.3 §5
};

// Those from 48 on have no name in the kernel's headers.
constexpr TypeName kTypes[] = {
    {"net", VIRTIO_ID_NET},
    {"block", VIRTIO_ID_BLOCK},
    {"console", VIRTIO_ID_CONSOLE},
    {"rng", VIRTIO_ID_RNG},
    {"balloon", VIRTIO_ID_BALLOON},
    {"scsi", VIRTIO_ID_SCSI},
    {"9p", VIRTIO_ID_9P},
    {"gpu", VIRTIO_ID_GPU},
    {"input", VIRTIO_ID_INPUT},
    {"vsock", VIRTIO_ID_VSOCK},
    {"iommu", VIRTIO_ID_IOMMU},
    {"sound", VIRTIO_ID_SOUND},
    {"fs", VIRTIO_ID_FS},
    {"pmem", VIRTIO_ID_PMEM},
    {"mac80211-hwsim", VIRTIO_ID_MAC80211_HWSIM},
    {"video-encoder", VIRTIO_ID_VIDEO_ENCODER},
    {"video-decoder", VIRTIO_ID_VIDEO_DECODER},
    {"scmi", VIRTIO_ID_SCMI},
    {"wl", 63},
    {"tpm", 62},
    {"pvclock", 61},
    {"media", 48},
};

Result<void> read_kv(const KvValue& value, TypeName& type) {
  std::vector<std::string_view> names;
  for (const TypeName& known : kTypes) names.push_back(known.name);
  const size_t index = TRY(value.variant(names));
  TRY(value.expect_plain());
  type = kTypes[index];
  return {};
}

}  // namespace

Result<VhostUserRequest> parse_vhost_user(std::string_view text) {
  VhostUserRequest request;
  TypeName type{};
  uint64_t queue_size = request.max_queue_size;
  TRY(read_key_values(
      text, {kv_key("type", type).require(), kv_key("socket", request.socket).require(),
             kv_key("max-queue-size", queue_size), kv_key("pci-address", request.pci_address)}));
  constexpr uint64_t kMost = UINT16_MAX;  // then rounded down
  if (queue_size == 0 || queue_size > kMost) {
    return fail(Error::invalid(
        format_text("max-queue-size={}: give a number from 1 to {}", queue_size, kMost)));
  }
  if (request.pci_address) {
    TRY(with_context(PciAddress::parse(*request.pci_address), "pci-address"));
  }
  request.max_queue_size = static_cast<uint16_t>(std::bit_floor(queue_size));
  request.type = type.name;
  request.device_type = type.device_type;
  return request;
}

Result<VhostUserRequest> old_vhost_user(std::string_view type, std::string_view socket) {
  if (socket.empty()) return fail(Error::invalid("give the path of the back-end's socket"));
  const TypeName* known = std::ranges::find(kTypes, type, &TypeName::name);
  CHECK(known != std::end(kTypes));
  return VhostUserRequest{
      .type = std::string(type), .device_type = known->device_type, .socket = std::string(socket)};
}

}  // namespace crosvm
