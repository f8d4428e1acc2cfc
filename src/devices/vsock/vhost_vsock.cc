#include "devices/vsock/vhost_vsock.h"

#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/format.h"
#include "devices/vsock/vsock_packet.h"
#include "vhost/vhost_kernel_backend.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

constexpr std::string_view kOurs = "backend=user needs none of this";

std::string fix_for_opening(std::errc code) {
  switch (code) {
    case std::errc::no_such_file_or_directory:
    case std::errc::no_such_device:
    case std::errc::no_such_device_or_address:
      return format_text(
          "; load the kernel's module (modprobe vhost_vsock) on the host, and show the device to "
          "the container if there is one; {}",
          kOurs);
    case std::errc::permission_denied:
    case std::errc::operation_not_permitted:
      return format_text(
          "; let the user who starts crosvm read and write it, on most hosts as a "
          "member of its group; {}",
          kOurs);
    default:
      return {};
  }
}

Error explain(Error error, const VsockConfig& config) {
  switch (error.code()) {
    case std::errc::address_in_use:
      return Error(error.code(),
                   format_text("{}; another VM of this host has context ID {}: choose another cid",
                               error.what(), config.cid));
    case std::errc::device_or_resource_busy:
      return Error(error.code(), format_text("{}; another process owns what {} has open: open the "
                                             "device once for each VM",
                                             error.what(), config.device));
    case std::errc::inappropriate_io_control_operation:
      return Error(error.code(),
                   format_text("{}; {} is no vhost-vsock device", error.what(), config.device));
    default:
      return error;
  }
}

}  // namespace

Result<Fd> open_vhost_vsock(const VsockConfig& config) {
  auto device = open_path(config.device, O_RDWR | O_NONBLOCK);
  if (device) return device;
  const Error& error = device.error();
  return fail(Error(error.code(), error.what() + fix_for_opening(error.code())));
}

Result<std::unique_ptr<DeviceBackend>> run_vhost_vsock(EventLoop& loop, const VsockConfig& config,
                                                       Fd device) {
  const auto cid = std::as_bytes(std::span(&config.cid, 1));
  VhostKernelOptions options{
      .info = {.name = "vsock",
               .device_type = VIRTIO_ID_VSOCK,
               .features = uint64_t{1} << VIRTIO_F_VERSION_1 |
                           uint64_t{1} << VIRTIO_RING_F_EVENT_IDX |
                           uint64_t{1} << VIRTIO_RING_F_INDIRECT_DESC | kVsockSeqpacket,
               .queue_sizes = {config.queue_sizes.begin(), config.queue_sizes.end()},
               .config = {cid.begin(), cid.end()}},
      .kind = VhostVsock{.device = std::move(device), .guest_cid = config.cid}};
  auto backend = VhostKernelBackend::create(loop, std::move(options));
  if (!backend) return fail(explain(std::move(backend).error(), config));
  return std::move(*backend);
}

}  // namespace crosvm
