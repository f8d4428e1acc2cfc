#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/key_value.h"
#include "base/result.h"

namespace crosvm {

/// A port, and the Unix socket of the host that belongs to it: `PORT:PATH`, or
/// `PORT/seqpacket:PATH` where both are sequenced-packet sockets instead of streams.
struct VsockRule {
  uint32_t port = 0;
  bool seqpacket = false;
  std::string path;

  friend bool operator==(const VsockRule&, const VsockRule&) = default;
};

/// The configuration of a socket device, `--vsock` (cli.md 1.5, VsockConfig):
/// `cid=3,device=/dev/vhost-vsock`, or `cid=3,backend=user,connect=[1024:/run/agent.sock]`.
struct VsockConfig {
  enum class Backend {
    kKernel,  ///< the host's kernel, which connects the guest with all of its AF_VSOCK sockets
    kUser,    ///< ours, which connects it with the Unix sockets that the configuration names
  };
  static constexpr std::string_view kDevice = "/dev/vhost-vsock";
  static constexpr uint64_t kHostCid = 2;   ///< virtio 1.3 §5.10.4
  static constexpr size_t kMostRules = 64;  ///< of each kind

  uint64_t cid = 0;  ///< of the guest
  Backend backend = Backend::kKernel;
  std::string device{kDevice};  ///< of the kernel's
  /// Receive, transmit, event; powers of two.
  std::array<uint16_t, 3> queue_sizes{256, 256, 256};
  /// Of ours. `connect`: what the guest may connect to, ports of CID 2. `listen`: where we listen
  /// for programs of the host; each of their connections becomes one to that port of the guest.
  std::vector<VsockRule> connect;
  std::vector<VsockRule> listen;

  /// Opens nothing. Errors: invalid_argument naming the key.
  static Result<VsockConfig> parse(const KeyValues& text);
  /// `PORT:PATH` and `PORT/seqpacket:PATH`; `key` names them in errors, which are invalid_argument.
  static Result<std::vector<VsockRule>> parse_rules(std::string_view key,
                                                    const std::vector<std::string>& texts);
  /// The text that parses to this.
  std::string to_text() const;

  friend bool operator==(const VsockConfig&, const VsockConfig&) = default;
};

/// Whether a guest can have that CID. Errors: invalid_argument saying which it can have.
Result<void> check_guest_cid(uint64_t cid);

}  // namespace crosvm
