#pragma once

#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "devices/vsock/vsock_config.h"
#include "virtio/device_backend.h"

namespace crosvm {

/// The kernel's socket device of `config`, opened. Errors name the device, the cause and the fix.
Result<Fd> open_vhost_vsock(const VsockConfig& config);

/// Has the kernel run it for a guest, whose memory is this process's (devices.md 5.3). `loop`
/// outlives the backend. Errors: address_in_use when another guest has the context ID; those of
/// VhostKernelBackend.
Result<std::unique_ptr<DeviceBackend>> run_vhost_vsock(EventLoop& loop, const VsockConfig& config,
                                                       Fd device);

}  // namespace crosvm
