#include "cli/cli.h"
#include "devices/all_devices.h"
#include "jail/worker.h"
#include "vmm/run_vm.h"

int main(int argc, char** argv) {
  if (crosvm::is_worker(argc, argv)) return crosvm::worker_main(crosvm::find_device);
  return crosvm::crosvm_main(argc, argv, crosvm::run_vm);
}
