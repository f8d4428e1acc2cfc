#include <cstdio>
#include <string_view>

#include "devices/net/user/glib_messages.h"
#include "devices/net/user/user_net_worker.h"
#include "jail/worker.h"

#ifdef CROSVM_SANITIZE
// The check for leaks starts a process, which no policy allows.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

int main(int argc, char** argv) {
  // That it came so far, with its libraries, is what `crosvm doctor` asks.
  if (argc == 2 && std::string_view(argv[1]) == "--check") return 0;
  if (!crosvm::is_worker(argc, argv)) {
    std::fputs("crosvm-worker-net-user is the part of crosvm that serves --net user: run crosvm\n",
               stderr);
    return 2;
  }
  crosvm::take_glib_messages();
  return crosvm::worker_main(crosvm::find_user_net_device);
}
