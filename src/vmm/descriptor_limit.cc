#include "vmm/descriptor_limit.h"

#include <sys/resource.h>

#include "base/format.h"

namespace crosvm {

Result<void> raise_descriptor_limit() {
  constexpr rlim_t kFewest = 32;  // those of the spawner alone have numbers up to 20
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return {};
  if (limit.rlim_max < kFewest) {
    return fail(Error(std::errc::too_many_files_open,
                      format_text("only {} files may be open at a time, which is not enough; raise "
                                  "RLIMIT_NOFILE (ulimit -Hn), to 1024 or more",
                                  limit.rlim_max)));
  }
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
  return {};
}

}  // namespace crosvm
