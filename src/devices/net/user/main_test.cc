// The tests run the card in the process that crosvm would, and other devices in this program.

#include <gmock/gmock.h>
#include <signal.h>

#include "devices/all_devices.h"
#include "jail/worker.h"

int main(int argc, char** argv) {
  if (crosvm::is_worker(argc, argv)) return crosvm::worker_main(crosvm::find_device);
  ::signal(SIGPIPE, SIG_IGN);  // as in every process of ours that runs devices
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
