#pragma once

#include <string>
#include <vector>

#include "cli/doctor.h"
#include "cli/doctor_host.h"

namespace crosvm::doctor {

/// All checks, in the order of the report.
std::vector<Check> run_checks(const Host& host);

/// /dev/kvm, the CPU behind it, and whether a stock kernel runs on it.
std::vector<Check> check_kvm(const Host& host);
/// What the sandbox of the devices needs.
Check check_user_namespaces(const Host& host);
Check check_seccomp(const Host& host);
/// What devices and guest memory use.
Check check_io_uring(const Host& host);
Check check_tun(const Host& host);
Check check_vhost_net(const Host& host);
Check check_vhost_vsock(const Host& host);
Check check_shmem_huge_pages(const Host& host);
Check check_user_network(const Host& host);
Check check_ping(const Host& host);
Check check_memory_locks(const Host& host);

/// The text of an errno.
std::string error_text(int error_number);
/// The command that lets this user open a device node that is there.
std::string permission_fix(const Host& host, const std::string& node);

}  // namespace crosvm::doctor
