#include "cli/cli.h"
#include "devices/all_devices.h"
#include "jail/worker.h"
#include "vmm/run_vm.h"

#ifdef CROSVM_SANITIZE
// The check for leaks starts a process, which our filters do not allow. Signals that end a process
// are for our own handlers, which restore the terminal.
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:"
         "handle_abort=0";
}
#endif

int main(int argc, char** argv) {
  if (crosvm::is_worker(argc, argv)) return crosvm::worker_main(crosvm::find_device);
  return crosvm::crosvm_main(argc, argv, crosvm::run_vm);
}
