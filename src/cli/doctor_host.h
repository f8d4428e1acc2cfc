#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "hypervisor/kvm/probe.h"

namespace crosvm::doctor {

/// What the checks see of a host. Tests put another one in its place. The functions return 0, or
/// the errno of what they tried.
struct Host {
  std::string root;              ///< put before every path read; "" on a real host
  std::vector<uint32_t> groups;  ///< group ids of this process
  bool may_lock_memory = false;  ///< whatever the limit: CAP_IPC_LOCK
  uint64_t memlock_bytes = 0;    ///< soft RLIMIT_MEMLOCK; UINT64_MAX: none
  std::function<int(const std::string& node)> open_device;  ///< for reading and writing
  std::function<int()> make_namespaces;  ///< as the sandbox does, and a mount call inside
  std::function<int()> seccomp_user_notif;
  std::function<int()> set_up_io_uring;
  /// Where the executable of that name is (find_companion_program).
  std::function<Result<std::string>(std::string_view name)> find_program;
  /// Whether the executable of that path starts, asked to do nothing else (`--check`).
  std::function<Result<void>(const std::string& path)> start_program;
  std::function<Result<StockGuestProbe>()> probe_stock_guest;

  /// A small text file below the root, without white space around it; nullopt when it cannot be
  /// read.
  std::optional<std::string> read(const std::string& path) const;
  bool exists(const std::string& path) const;
};

/// The host we run on.
Host this_host();

}  // namespace crosvm::doctor
