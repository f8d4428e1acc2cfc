// The tests of forbidden acts try them in processes that they clone, and in workers, which execute
// this program.

#include <gmock/gmock.h>

#include "jail/worker.h"
#include "probe_device.h"

int main(int argc, char** argv) {
  if (crosvm::is_worker(argc, argv)) return crosvm::worker_main(crosvm::test::find_probe);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
