#pragma once

#include <optional>
#include <string>

#include "arch/kernel_entry.h"
#include "arch/x86_64/kernel_image.h"
#include "arch/x86_64/memory_map.h"
#include "base/result.h"
#include "hypervisor/x86_64/cpu_state.h"
#include "memory/guest_memory.h"

namespace crosvm::x86_64 {

/// What a guest boots: files are borrowed for the call.
struct LinuxBootRequest {
  BootFile kernel;
  std::optional<BootFile> initrd;
  std::string command_line;  ///< complete: see build_command_line
  KernelEntry entry = KernelEntry::kAuto;
};

/// How the first vCPU starts.
struct BootState {
  EntryMode mode = EntryMode::kLong64;
  Registers registers;
  AddressRange kernel;  ///< what the kernel takes before it reads the memory map
  std::optional<AddressRange> initrd;
};

/// Writes kernel, initrd, command line, boot tables and either zero page and setup_data or PVH
/// start info into `memory`, which was created for `layout`. ACPI, SMBIOS and MP tables are not
/// written. Errors: a sentence for the user that names the file, the cause and the fix.
Result<BootState> load_linux(const GuestMemory& memory, const MemoryLayout& layout,
                             const LinuxBootRequest& request);

}  // namespace crosvm::x86_64
