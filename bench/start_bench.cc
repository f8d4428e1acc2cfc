// Measures the start of a virtual machine: starts a command and takes the time until its standard
// output carries a text, or the first byte of any.
//
// usage: start_bench [--until TEXT] RUNS COMMAND…
// Prints one line of JSON: median and minimum of the wall time and median CPU time from exec on, in
// milliseconds, and the median memory beside guest RAM in KiB: the proportional set size of all its
// processes without the guest's memfd, taken when the text has come.

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/format.h"
#include "bench/processes.h"

namespace crosvm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPatienceMs = 120'000;

struct Sample {
  double wall_ms = 0;
  double cpu_ms = 0;
  double beside_ram_kib = 0;
};

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// Lets us look at the clocks at once when the text comes: a guest that goes on running would be
/// charged for our delay. Only for us, not for what we start; without the privilege, as usual.
void look_at_once() {
  sched_param priority{.sched_priority = 1};
  ::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority);
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

Result<pid_t> spawn(char** command, const Fd& output) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, output.get(), 1);
  pid_t pid = 0;
  int error = ::posix_spawnp(&pid, command[0], &actions, nullptr, command, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail(Error::from_errno("starting", command[0], error));
  return pid;
}

/// Waits until `text`, or with an empty one any byte, has come from `output`.
Result<void> wait_for(const Fd& output, std::string_view text, Clock::time_point start) {
  std::string seen;
  char bytes[4096];
  while (seen.empty() || seen.find(text) == std::string::npos) {
    pollfd wait{output.get(), POLLIN, 0};
    int left_ms = kPatienceMs - static_cast<int>(ms_since(start));
    if (left_ms <= 0 || ::poll(&wait, 1, left_ms) != 1) {
      return fail(Error(std::errc::timed_out, format_text("the guest did not say '{}' in {} s",
                                                          text, kPatienceMs / 1000)));
    }
    ssize_t count = ::read(output.get(), bytes, sizeof(bytes));
    if (count <= 0) {
      return fail(
          Error(std::errc::broken_pipe,
                format_text("ended before the guest said '{}'; last: {}", text,
                            seen.substr(seen.size() - std::min<size_t>(seen.size(), 500)))));
    }
    seen.append(bytes, static_cast<size_t>(count));
  }
  return {};
}

Result<Sample> measure(char** command, std::string_view text) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(Error::from_errno("creating", "a pipe"));
  Fd from_command(ends[0]);
  Fd to_us(ends[1]);
  Clock::time_point start = Clock::now();
  pid_t pid = TRY(spawn(command, to_us));
  to_us = Fd();
  Result<void> came = wait_for(from_command, text, start);
  Sample sample{.wall_ms = ms_since(start), .cpu_ms = 0, .beside_ram_kib = 0};
  sample.cpu_ms = cpu_ms(pid);  // before anything slow: the guest goes on running
  std::vector<pid_t> members = process_family(pid);
  for (pid_t each : members) {
    if (each != pid) sample.cpu_ms += cpu_ms(each);
  }
  for (pid_t each : members) sample.beside_ram_kib += beside_ram_kib(each);
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  TRY(with_context(std::move(came), command[0]));
  return sample;
}

std::vector<double> sorted(const std::vector<Sample>& samples, double Sample::* field) {
  std::vector<double> values;
  for (const Sample& sample : samples) values.push_back(sample.*field);
  std::ranges::sort(values);
  return values;
}

double median(const std::vector<Sample>& samples, double Sample::* field) {
  return sorted(samples, field)[samples.size() / 2];
}

int bench(int runs, char** command, std::string_view text) {
  std::vector<Sample> samples;
  look_at_once();
  for (int i = 0; i < runs; ++i) {
    Result<Sample> sample = measure(command, text);
    if (!sample) {
      fprintf(stderr, "start_bench: %s\n", sample.error().what().c_str());
      return 1;
    }
    samples.push_back(*sample);
  }
  printf(
      "{\"runs\":%d,\"wall_ms\":%.2f,\"wall_ms_min\":%.2f,\"cpu_ms\":%.2f,"
      "\"beside_ram_kib\":%.0f}\n",
      runs, median(samples, &Sample::wall_ms), sorted(samples, &Sample::wall_ms).front(),
      median(samples, &Sample::cpu_ms), median(samples, &Sample::beside_ram_kib));
  return 0;
}

}  // namespace
}  // namespace crosvm

int main(int argc, char** argv) {
  std::string_view text;
  int at = 1;
  if (argc > 3 && std::strcmp(argv[1], "--until") == 0) {
    text = argv[2];
    at = 3;
  }
  int runs = argc > at + 1 ? std::atoi(argv[at]) : 0;
  if (runs < 1) {
    fprintf(stderr, "usage: start_bench [--until TEXT] RUNS COMMAND...\n");
    return 2;
  }
  return crosvm::bench(runs, argv + at + 1, text);
}
