// disk_bench: what formats of disks cost by themselves, without a device above.
//
//   disk_bench settle FILE…           makes them stable, and cached page by page: how a file was
//   written
//                                     must not count, and a file system may walk all of a large
//                                     folio for each 4 KiB
//   disk_bench zstd FILE ROUNDS       FILE from start to end, by us and by `zstd -d`, in turns:
//   MiB/s of
//                                     each, CPU s of each, how many times theirs our rate is, with
//                                     the quartiles, and how many times ours their CPU time is
//   disk_bench lookup ROUNDS IMAGE…   qcow2 images without data of any size, in turns. They are
//   written
//                                     to first. A line for each: CPU ns of finding a place whose
//                                     table is in memory, of reading 4 KiB there, and of reading 4
//                                     KiB where the table comes first
//   disk_bench checks ROUNDS IMAGE    an image that `lookup` has seen: CPU ns of a write of 4 KiB
//   in
//                                     place, and of the check that it overlaps no metadata
//
// Prints fields with tabs between; all are medians of the rounds.

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/format.h"
#include "base/log.h"
#include "disk/qcow2/qcow2_metadata.h"
#include "disk/tools/tool_image.h"

namespace crosvm {
namespace {

using Kind = DiskRequest::Kind;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kBlock = 4096;

double seconds_of(const timespec& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}
double cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return seconds_of(time);
}

/// The value below which `share` of all are.
double quantile(std::vector<double> values, double share) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}
double median(const std::vector<double>& values) { return quantile(values, 0.5); }

/// A request that is made over and over.
class Slot final : public DiskRequest {
 public:
  Slot(size_t bytes, std::function<void(Slot&)> done) : bytes_(bytes), done_(std::move(done)) {}
  void begin(Disk& disk, Kind what, uint64_t at, uint64_t size) {
    kind = what;
    offset = at;
    length = size;
    buffers.clear();
    if (what == Kind::kRead || what == Kind::kWrite) {
      buffers.push_back(GuestSlice::over(std::span(bytes_).first(size)));
    }
    disk.start(*this);
  }
  void disk_done(int error) override {
    CHECK(error == 0);
    done_(*this);
  }

 private:
  std::vector<std::byte> bytes_;
  std::function<void(Slot&)> done_;
};

/// Makes requests of `size` bytes at `places`, `depth` at a time, in order.
void make_requests(ToolImage& image, Kind kind, const std::vector<uint64_t>& places, uint64_t size,
                   size_t depth) {
  Disk& disk = image.disk();
  const uint64_t disk_size = disk.size();
  size_t next = 0;
  size_t ended = 0;
  auto begin = [&](Slot& slot) {
    if (next == places.size()) return;
    const uint64_t at = places[next++];
    slot.begin(disk, kind, at, std::min(size, disk_size - at));
  };
  std::vector<std::unique_ptr<Slot>> slots;
  for (size_t i = 0; i < std::min(depth, places.size()); ++i) {
    slots.push_back(std::make_unique<Slot>(size, [&](Slot& slot) {
      ++ended;
      begin(slot);
    }));
    begin(*slots.back());
  }
  disk.submit();
  while (ended < places.size()) CHECK(image.loop().run_once(std::chrono::seconds(10)).has_value());
}

// ---- the page cache

Result<void> settle(const std::string& path) {
  const Fd file = TRY(open_path(path, O_RDWR));
  if (::fsync(file.get()) != 0) return fail(Error::from_errno("flushing", path));
  (void)::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  (void)::posix_fadvise(file.get(), 0, 0,
                        POSIX_FADV_RANDOM);  // does not read ahead, in large folios
  std::vector<std::byte> bytes(1 << 20);
  const uint64_t size = TRY(file_size(file, path));
  for (uint64_t at = 0; at < size; at += bytes.size()) {
    const auto part = std::span(bytes).first(std::min<uint64_t>(bytes.size(), size - at));
    TRY(read_full_at(file, at, part, path));
  }
  return {};
}

// ---- zstd

struct Effort {
  double wall_s = 0;
  double cpu_s = 0;
};

/// As a guest reads ahead: two requests of 128 KiB.
Result<Effort> read_by_us(const std::string& file) {
  constexpr uint64_t kChunk = 128 << 10;
  const auto start = Clock::now();
  const double cpu = cpu_seconds();
  ToolImage image = TRY(ToolImage::open(file, {}));
  std::vector<uint64_t> places;
  for (uint64_t at = 0; at < image.disk().size(); at += kChunk) places.push_back(at);
  make_requests(image, Kind::kRead, places, kChunk, 2);
  return Effort{.wall_s = std::chrono::duration<double>(Clock::now() - start).count(),
                .cpu_s = cpu_seconds() - cpu};
}

Result<Effort> read_by_zstd(std::string file) {
  std::string program = "zstd";
  std::string flags = "-dcq";
  char* const command[] = {program.data(), flags.data(), file.data(), nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  const auto start = Clock::now();
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, command[0], &actions, nullptr, command, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail(Error::from_errno("starting", program, error));
  int status = 0;
  rusage usage{};
  if (::wait4(pid, &status, 0, &usage) != pid || status != 0) {
    return fail(Error::invalid("zstd did not unpack " + file));
  }
  auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return Effort{.wall_s = std::chrono::duration<double>(Clock::now() - start).count(),
                .cpu_s = seconds(usage.ru_utime) + seconds(usage.ru_stime)};
}

Result<void> bench_zstd(const std::string& file, int rounds) {
  const double mebibytes =
      static_cast<double>(TRY(ToolImage::open(file, {})).disk().size()) / (1 << 20);
  std::vector<double> our_rate, their_rate, our_cpu, their_cpu, ratio, cpu_ratio;
  for (int round = 0; round < rounds; ++round) {
    const Effort ours = TRY(read_by_us(file));
    const Effort theirs = TRY(read_by_zstd(file));
    our_rate.push_back(mebibytes / ours.wall_s);
    their_rate.push_back(mebibytes / theirs.wall_s);
    our_cpu.push_back(ours.cpu_s);
    their_cpu.push_back(theirs.cpu_s);
    ratio.push_back(theirs.wall_s / ours.wall_s);
    cpu_ratio.push_back(theirs.cpu_s / ours.cpu_s);
  }
  std::puts(
      format_text("{:.0f}\t{:.0f}\t{:.3f}\t{:.3f}\t{:.2f}\t{:.2f}\t{:.2f}\t{:.2f}\t{:.2f}\t{:.2f}",
                  median(our_rate), median(their_rate), median(our_cpu), median(their_cpu),
                  median(ratio), quantile(ratio, 0.25), quantile(ratio, 0.75), median(cpu_ratio),
                  quantile(cpu_ratio, 0.25), quantile(cpu_ratio, 0.75))
          .c_str());
  return {};
}

// ---- lookups

constexpr uint64_t kPlaces = 2048;
constexpr uint64_t kMostTables = 128;  // half of what a disk keeps in memory

/// Places all over a disk of `size` bytes, in at most kMostTables tables of 64 KiB clusters.
std::vector<uint64_t> spread_places(uint64_t size) {
  constexpr uint64_t kCovered = uint64_t{512} << 20;  // by one table
  const uint64_t tables = std::clamp<uint64_t>(size / kCovered, 1, kMostTables);
  const uint64_t each = kPlaces / tables;
  std::vector<uint64_t> places;
  for (uint64_t i = 0; i < tables; ++i) {
    const uint64_t start = size / tables * i / kCovered * kCovered;
    for (uint64_t j = 0; j < each; ++j) places.push_back(start + kCovered / each * j);
  }
  std::ranges::shuffle(places, std::minstd_rand(1));
  return places;
}

/// The first place in each table.
std::vector<uint64_t> one_in_each_table(const std::vector<uint64_t>& places) {
  std::vector<uint64_t> firsts;
  for (const uint64_t place : places) {
    if (place % (uint64_t{512} << 20) == 0) firsts.push_back(place);
  }
  return firsts;
}

Result<void> prepare(const std::string& path) {
  ToolImage image = TRY(ToolImage::open(path, {.read_only = false}));
  make_requests(image, Kind::kWrite, spread_places(image.disk().size()), kBlock, 32);
  make_requests(image, Kind::kFlush, {0}, 0, 1);
  return {};
}

/// Fills the processor's caches with something else: a small image would stay in them.
void forget_cached_lines() {
  static std::vector<unsigned char> bytes(64 << 20);
  for (size_t at = 0; at < bytes.size(); at += 64) ++bytes[at];
}

/// CPU ns of each of these requests.
double cost(ToolImage& image, Kind kind, const std::vector<uint64_t>& places) {
  const double before = cpu_seconds();
  make_requests(image, kind, places, kBlock, 32);
  return (cpu_seconds() - before) * 1e9 / static_cast<double>(places.size());
}

struct Lookups {
  std::vector<double> found, warm, cold;
};

Result<void> look_up(const std::string& path, Lookups& to) {
  std::vector<double> cold;
  for (size_t tables = 0; tables < kMostTables;) {
    ToolImage image = TRY(ToolImage::open(path, {}));
    const auto firsts = one_in_each_table(spread_places(image.disk().size()));
    forget_cached_lines();
    cold.push_back(cost(image, Kind::kRead, firsts));
    tables += firsts.size();
  }
  to.cold.push_back(median(cold));
  ToolImage image = TRY(ToolImage::open(path, {}));
  const auto places = spread_places(image.disk().size());
  (void)cost(image, Kind::kRead, places);  // brings all tables
  to.warm.push_back(cost(image, Kind::kRead, places));
  (void)cost(image, Kind::kExtent, places);
  to.found.push_back(cost(image, Kind::kExtent, places));
  return {};
}

Result<void> bench_lookup(int rounds, std::span<char*> images) {
  std::vector<Lookups> all(images.size());
  for (const char* image : images) TRY(prepare(image));
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < images.size(); ++i) TRY(look_up(images[i], all[i]));
  }
  for (const Lookups& of : all) {
    std::puts(
        format_text("{:.0f}\t{:.0f}\t{:.0f}", median(of.found), median(of.warm), median(of.cold))
            .c_str());
  }
  return {};
}

// ---- overlap checks

/// Where the bytes at `places` lie in the file.
Result<std::vector<uint64_t>> hosts_of(Qcow2Metadata& metadata, SyncFile& file,
                                       const std::vector<uint64_t>& places) {
  std::vector<uint64_t> hosts;
  std::vector<std::byte> bytes(static_cast<size_t>(metadata.layout().cluster_size()));
  for (const uint64_t place : places) {
    CachedTable* table = nullptr;
    while (true) {
      const Qcow2Need need = metadata.l2().find_table(place, table);
      if (need.is_nothing()) break;
      TRY(file.read_at(need.value, bytes));
      metadata.add_loaded(need, bytes);
    }
    hosts.push_back(metadata.l2().run(table, place, kBlock).host);
  }
  return hosts;
}

double check_ns(Qcow2Metadata& metadata, const std::vector<uint64_t>& hosts) {
  constexpr int kTimes = 50;
  const Qcow2Layout& layout = metadata.layout();
  uint64_t good = 0;
  const double before = cpu_seconds();
  for (int i = 0; i < kTimes; ++i) {
    for (const uint64_t host : hosts) {
      const uint64_t first = host >> layout.cluster_bits;
      const uint64_t count = layout.clusters(host + kBlock) - first;
      good += metadata.map().is_all(first, count, ClusterUse::kData) ? 1 : 0;
    }
  }
  const double seconds = cpu_seconds() - before;
  CHECK(good == kTimes * hosts.size());
  return seconds * 1e9 / static_cast<double>(good);
}

Result<void> bench_checks(int rounds, const std::string& path) {
  std::vector<double> writes, checks, ratio;
  for (int round = 0; round < rounds; ++round) {
    ToolImage image = TRY(ToolImage::open(path, {.read_only = false}));
    const auto places = spread_places(image.disk().size());
    auto sync = TRY(make_sync_file(image.file(), path));
    auto metadata = TRY(Qcow2Metadata::open(*sync, path, true, {}));
    const auto hosts = TRY(hosts_of(*metadata, *sync, places));
    (void)cost(image, Kind::kWrite, places);
    writes.push_back(cost(image, Kind::kWrite, places));
    checks.push_back(check_ns(*metadata, hosts));
    ratio.push_back(checks.back() / writes.back() * 100);
  }
  std::puts(format_text("{:.0f}\t{:.1f}\t{:.2f}\t{:.2f}\t{:.2f}", median(writes), median(checks),
                        median(ratio), quantile(ratio, 0.25), quantile(ratio, 0.75))
                .c_str());
  return {};
}

Result<void> run(std::string_view what, std::span<char*> rest) {
  if (what == "settle") {
    for (const char* file : rest) TRY(settle(file));
    return {};
  }
  if (what == "zstd" && rest.size() == 2) return bench_zstd(rest[0], std::atoi(rest[1]));
  if (what == "lookup" && rest.size() > 1) {
    return bench_lookup(std::atoi(rest[0]), rest.subspan(1));
  }
  if (what == "checks" && rest.size() == 2) return bench_checks(std::atoi(rest[0]), rest[1]);
  return fail(
      Error::invalid("usage: disk_bench settle FILE... | zstd FILE ROUNDS | lookup ROUNDS IMAGE... "
                     "| checks ROUNDS IMAGE"));
}

}  // namespace
}  // namespace crosvm

int main(int count, char** arguments) {
  using namespace crosvm;
  (void)log::configure({.filter = "info", .use_syslog = false});
  const auto done =
      run(count > 1 ? arguments[1] : "",
          std::span(arguments, static_cast<size_t>(count)).subspan(count > 1 ? 2 : 1));
  if (!done) log::error("{}", done.error().what());
  return done ? 0 : 1;
}
