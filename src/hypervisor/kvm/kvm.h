#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "hypervisor/x86_64/hypervisor.h"

namespace crosvm {

/// Opens the KVM device node `path`, usually "/dev/kvm". Errors name the node, the cause and the
/// fix: no_such_file_or_directory, permission_denied, function_not_supported for another API
/// version, not_supported when the kernel is too old, else the errno of the call.
Result<std::unique_ptr<x86_64::Hypervisor>> open_kvm(const std::string& path);

}  // namespace crosvm
