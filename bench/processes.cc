#include "bench/processes.h"

#include <dirent.h>
#include <time.h>

#include <cstdio>
#include <memory>
#include <string>

#include "base/format.h"

namespace crosvm {

std::vector<pid_t> process_family(pid_t pid) {
  std::vector<pid_t> members{pid};
  const std::string tasks = format_text("/proc/{}/task", pid);
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(tasks.c_str()), ::closedir);
  while (const dirent* task = folder ? ::readdir(folder.get()) : nullptr) {
    const std::string name = format_text("{}/{}/children", tasks, task->d_name);
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> children(std::fopen(name.c_str(), "re"),
                                                                   std::fclose);
    for (pid_t child = 0; children && std::fscanf(children.get(), "%d", &child) == 1;) {
      for (pid_t each : process_family(child)) members.push_back(each);
    }
  }
  return members;
}

double cpu_ms(pid_t pid) {
  clockid_t clock = 0;
  timespec time{};
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

}  // namespace crosvm
