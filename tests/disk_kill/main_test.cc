// The test starts processes that work on an image, which execute this program.

#include <gmock/gmock.h>

#include "kill_child.h"

int main(int argc, char** argv) {
  if (crosvm::test::is_kill_child(argc, argv)) return crosvm::test::work_until_killed(argv);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
