// The tests of the devices run them in this process, and in jailed processes that execute this
// program.

#include <gmock/gmock.h>

#include "devices/all_devices.h"
#include "jail/rig/worker_host.h"
#include "jail/worker.h"
#include "virtio/rig/rig.h"

int main(int argc, char** argv) {
  if (crosvm::is_worker(argc, argv)) return crosvm::worker_main(crosvm::find_device);
  crosvm::set_run_in_worker(crosvm::run_in_own_worker);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
