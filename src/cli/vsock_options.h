#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "devices/vsock/vsock_config.h"

namespace crosvm {

/// What the old flags say of a socket device (cli.md 2.1).
struct OldVsockOptions {
  std::optional<uint64_t> cid;        ///< `--cid`
  std::optional<std::string> device;  ///< `--vhost-vsock-device`
  std::optional<uint32_t> fd;         ///< `--vhost-vsock-fd`
};

/// One `--vsock` (cli.md 1.5, VsockConfig). Errors: invalid_argument naming the key.
Result<VsockConfig> parse_vsock(std::string_view text);

/// The values of `--cid` and `--vhost-vsock-fd`. Errors: invalid_argument for what is no number.
Result<uint64_t> parse_cid(std::string_view text);
Result<uint32_t> parse_vsock_fd(std::string_view text);

/// The socket device of a VM, if it has one. Errors: invalid_argument when flags disagree (cli.md
/// 1.6).
Result<std::optional<VsockConfig>> choose_vsock(std::optional<VsockConfig> vsock,
                                                const OldVsockOptions& old);

/// The kernel's device at `path`, by whichever of the two it is given, for `cid`. Errors:
/// invalid_argument for a context ID that no guest can have.
Result<VsockConfig> kernel_vsock(uint64_t cid, std::optional<std::string> path);

}  // namespace crosvm
