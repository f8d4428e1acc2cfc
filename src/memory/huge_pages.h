#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "memory/guest_memory.h"

namespace crosvm {

/// The size of a huge page that we ask for, in bytes.
inline constexpr uint64_t kHugePageSize = 2 << 20;

/// Whether the ranges are whole hugetlb pages and the host's pool has that many free; logs at debug
/// level why not. Somebody else may take them before we do.
bool can_use_hugetlb(std::span<const RamRange> ranges);

/// The mode in brackets of /sys/kernel/mm/transparent_hugepage/shmem_enabled, e.g. "never"; empty
/// when there is none.
std::string_view selected_mode(std::string_view shmem_enabled);

/// Whether `mode` gives a memfd huge pages after MADV_HUGEPAGE.
bool shmem_mode_allows_huge_pages(std::string_view mode);

/// Logs whether guest memory of `bytes` gets shmem huge pages and, if not, what would give them.
/// Returns whether it does.
bool report_shmem_huge_pages(uint64_t bytes);

}  // namespace crosvm
