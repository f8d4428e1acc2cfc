// Measures the way from exec to the guest's first instruction: starts a command whose guest writes
// one byte that the command passes to its stdout, and takes the time until that byte.
//
// usage: start_bench RUNS COMMAND…
// Prints JSON: medians of wall and CPU milliseconds, and the memory of the process beside guest RAM
// in KiB (proportional set size without the guest's memfd), read while the guest spins.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/format.h"

namespace crosvm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPatienceMs = 10'000;

struct Sample {
  double wall_ms = 0;
  double cpu_ms = 0;
  double beside_ram_kib = 0;
};

/// CPU time of all threads of the process so far.
double cpu_ms(pid_t pid) {
  clockid_t clock;
  timespec time{};
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

/// Sum of the proportional set size of all mappings but the guest's RAM.
double beside_ram_kib(pid_t pid) {
  std::ifstream maps(format_text("/proc/{}/smaps", pid));
  std::string line;
  bool counted = true;
  double kib = 0;
  while (std::getline(maps, line)) {
    if (line.find('-') != std::string::npos && line.find(':') > line.find(' ')) {
      counted = line.find("crosvm_guest") == std::string::npos;
    } else if (counted && line.starts_with("Pss:")) {
      kib += std::atof(line.c_str() + 4);
    }
  }
  return kib;
}

Result<Sample> measure(char** command) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(Error::from_errno("creating", "a pipe"));
  Fd from_child(ends[0]);
  Fd to_us(ends[1]);
  auto start = Clock::now();
  pid_t pid = ::fork();
  if (pid < 0) return fail(Error::from_errno("starting", command[0]));
  if (pid == 0) {
    ::dup2(to_us.get(), 1);
    ::dup2(::open("/dev/null", O_RDWR), 2);
    ::execv(command[0], command);
    ::_exit(127);
  }
  to_us = Fd();
  pollfd wait{from_child.get(), POLLIN, 0};
  char byte = 0;
  bool came = ::poll(&wait, 1, kPatienceMs) == 1 && ::read(from_child.get(), &byte, 1) == 1;
  auto end = Clock::now();
  Sample sample{.wall_ms = std::chrono::duration<double, std::milli>(end - start).count(),
                .cpu_ms = cpu_ms(pid),
                .beside_ram_kib = beside_ram_kib(pid)};
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  if (!came) {
    return fail(Error(std::errc::timed_out,
                      format_text("{}: the guest's first byte did not come", command[0])));
  }
  return sample;
}

double median(std::vector<Sample>& samples, double Sample::* field) {
  auto middle = samples.begin() + static_cast<ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end(),
                   [field](const Sample& a, const Sample& b) { return a.*field < b.*field; });
  return (*middle).*field;
}

int bench(int runs, char** command) {
  std::vector<Sample> samples;
  for (int i = 0; i < runs; ++i) {
    Result<Sample> sample = measure(command);
    if (!sample) {
      fprintf(stderr, "%s\n", sample.error().what().c_str());
      return 1;
    }
    samples.push_back(*sample);
  }
  printf("{\"runs\":%d,\"wall_ms\":%.2f,\"cpu_ms\":%.2f,\"beside_ram_kib\":%.0f}\n", runs,
         median(samples, &Sample::wall_ms), median(samples, &Sample::cpu_ms),
         median(samples, &Sample::beside_ram_kib));
  return 0;
}

}  // namespace
}  // namespace crosvm

int main(int argc, char** argv) {
  int runs = argc > 2 ? std::atoi(argv[1]) : 0;
  if (runs < 1) {
    fprintf(stderr, "usage: start_bench RUNS COMMAND...\n");
    return 2;
  }
  return crosvm::bench(runs, argv + 2);
}
