#include "arch/x86_64/linux_boot.h"

#include "arch/x86_64/boot_params.h"
#include "arch/x86_64/boot_state.h"
#include "arch/x86_64/cmdline.h"
#include "arch/x86_64/initrd.h"
#include "arch/x86_64/pvh.h"

namespace crosvm::x86_64 {

Result<BootState> load_linux(const GuestMemory& memory, const MemoryLayout& layout,
                             const LinuxBootRequest& request) {
  const KernelImage kernel = TRY(load_kernel(memory, request.kernel, request.entry));
  std::optional<AddressRange> initrd;
  if (request.initrd) initrd = TRY(load_initrd(memory, *request.initrd, kernel));
  TRY(write_command_line(memory, request.command_line, kernel.header.cmdline_size));
  TRY(write_boot_tables(memory, kernel.mode));
  if (kernel.mode == EntryMode::kPvh) {
    TRY(write_pvh_start_info(memory, {.initrd = initrd, .e820 = layout.e820}));
  } else {
    TRY(write_setup_data(memory));
    TRY(write_zero_page(memory, {.header = kernel.header, .initrd = initrd, .e820 = layout.e820}));
  }
  return BootState{.mode = kernel.mode,
                   .registers = boot_registers(kernel.mode, kernel.entry),
                   .kernel = kernel.memory,
                   .initrd = initrd};
}

}  // namespace crosvm::x86_64
