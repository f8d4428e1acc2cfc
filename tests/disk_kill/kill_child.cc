#include "kill_child.h"

#include <fcntl.h>
#include <spawn.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string_view>
#include <utility>

#include "base/event_loop.h"
#include "base/format.h"
#include "base/io_uring.h"
#include "disk/image_file.h"
#include "disk/image_names.h"
#include "disk/open_disk.h"

namespace crosvm::test {
namespace {

using Kind = DiskRequest::Kind;
using EventKind = DiskEvent::Kind;

constexpr std::string_view kMark = "--work-until-killed";
constexpr int kLogDescriptor = 3;
constexpr uint32_t kRingEntries = 64;
constexpr size_t kMostRunning = 16;

/// One process on one image.
class Worker {
 public:
  Worker(KillWork work, KillLog log)
      : work_(std::move(work)),
        log_(std::move(log)),
        random_(work_.seed),
        next_(work_.first_number) {}

  Result<void> run() {
    TRY(open());
    log_.set_open();
    while (!log_.is_full()) TRY(step());
    while (true) ::pause();
  }

 private:
  struct Request final : DiskRequest {
    explicit Request(Worker& worker) : worker(worker) {}
    void disk_done(int error) override {
      worker.log_.add({.kind = EventKind::kEnd, .error = error, .id = id});
      is_done = true;
    }
    Worker& worker;
    uint64_t id = 0;
    bool is_done = false;
    std::vector<std::byte> bytes;
  };

  uint64_t below(uint64_t limit) { return random_() % limit; }

  Result<void> open() {
    const ImageFileOptions how{.direct = work_.direct};
    auto image = std::make_shared<const Fd>(TRY(open_image_file(work_.path, how)));
    loop_ = TRY(EventLoop::create());
    std::optional<IoUring> ring;
    if (work_.uring) ring = TRY(IoUring::create(kRingEntries));
    AsyncFiles files = TRY(AsyncFiles::create(*loop_, std::move(ring)));
    ImageNames names({.path = work_.path, .allowed = {}, .direct = work_.direct});
    DiskOptions options{.object = work_.path};
    if (work_.is_raw) options.format = ImageFormat::kRaw;
    disk_ = TRY(open_disk(std::move(image), options, files, &names));
    return {};
  }

  /// What is on its way is dropped, as when a VM ends.
  void close() {
    disk_.reset();
    running_.clear();
    loop_.reset();
  }

  Result<void> step() {
    std::erase_if(running_, [](const auto& request) { return request->is_done; });
    const uint64_t what = below(1000);
    if (what == 0) {
      close();
      return open();
    }
    if (what < 5 && work_.may_resize) return resize();
    if (what < 300 || running_.size() == kMostRunning) {
      return loop_->run_once(std::chrono::milliseconds(running_.empty() ? 0 : 1));
    }
    if (what < 320) {
      start(std::make_unique<Request>(*this), EventKind::kFlush, 0, 0);
      return {};
    }
    const uint64_t sectors = disk_->size() / kSector;
    const uint64_t count = 1 + below(std::min<uint64_t>(below(4) == 0 ? 400 : 16, sectors));
    const uint64_t first = below(sectors - count + 1);
    if (is_busy(first, count)) return {};
    auto request = std::make_unique<Request>(*this);
    start(std::move(request),
          what < 800   ? EventKind::kWrite
          : what < 900 ? EventKind::kWriteZeroes
                       : EventKind::kDiscard,
          first, count);
    return {};
  }

  bool is_busy(uint64_t first, uint64_t count) const {
    return std::ranges::any_of(running_, [&](const auto& request) {
      return request->kind != Kind::kFlush && first * kSector < request->offset + request->length &&
             request->offset < (first + count) * kSector;
    });
  }

  void start(std::unique_ptr<Request> request, EventKind kind, uint64_t first, uint64_t count) {
    request->kind = kind == EventKind::kWrite         ? Kind::kWrite
                    : kind == EventKind::kWriteZeroes ? Kind::kWriteZeroes
                    : kind == EventKind::kDiscard     ? Kind::kDiscard
                                                      : Kind::kFlush;
    request->id = ++last_id_;
    request->may_unmap = below(2) == 0;
    request->offset = first * kSector;
    request->length = count * kSector;
    log_.add({.kind = kind, .id = last_id_, .first = first, .count = count, .number = next_});
    if (kind == EventKind::kWrite) {
      request->bytes.resize(count * kSector);
      const std::span<std::byte> bytes(request->bytes);
      for (uint64_t i = 0; i < count; ++i) {
        SectorModel::fill(bytes.subspan(i * kSector, kSector), next_++);
      }
      request->buffers = {GuestSlice::over(bytes)};
    }
    disk_->start(*request);
    running_.push_back(std::move(request));
    disk_->submit();
  }

  Result<void> resize() {
    while (std::ranges::any_of(running_, [](const auto& request) { return !request->is_done; })) {
      TRY(loop_->run_once(std::chrono::seconds(1)));
    }
    const uint64_t sectors =
        work_.least_sectors + below(work_.most_sectors - work_.least_sectors + 1);
    const uint64_t id = ++last_id_;
    log_.add({.kind = EventKind::kResize, .id = id, .count = sectors});
    bool is_done = false;
    disk_->resize(sectors * kSector, [&](const Result<void>& result) {
      log_.add({.kind = EventKind::kEnd, .error = errno_of(result), .id = id});
      is_done = true;
    });
    while (!is_done) TRY(loop_->run_once(std::chrono::seconds(1)));
    return {};
  }

  const KillWork work_;
  KillLog log_;
  std::mt19937_64 random_;
  uint64_t next_;
  uint64_t last_id_ = 0;
  std::unique_ptr<EventLoop> loop_;
  std::vector<std::unique_ptr<Request>> running_;
  std::unique_ptr<Disk> disk_;  // goes first
};

}  // namespace

Result<pid_t> start_kill_child(const KillWork& work, const KillLog& log) {
  const std::array<uint64_t, 8> numbers = {work.is_raw,       work.uring,        work.direct,
                                           work.seed,         work.first_number, work.least_sectors,
                                           work.most_sectors, work.may_resize};
  std::vector<std::string> arguments = {"disk_kill_test", std::string(kMark), work.path};
  for (uint64_t number : numbers) arguments.push_back(format_text("{}", number));
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, log.descriptor().get(), kLogDescriptor);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail(Error::from_errno("starting", work.path, error));
  return pid;
}

bool is_kill_child(int argc, char** argv) { return argc > 2 && argv[1] == kMark; }

int work_until_killed(char** argv) {
  auto number = [&](int index) { return std::strtoull(argv[index + 3], nullptr, 10); };
  KillWork work{.path = argv[2],
                .is_raw = number(0) != 0,
                .uring = number(1) != 0,
                .direct = number(2) != 0,
                .seed = number(3),
                .first_number = number(4),
                .least_sectors = number(5),
                .most_sectors = number(6),
                .may_resize = number(7) != 0};
  auto log = KillLog::attach(Fd(kLogDescriptor));
  if (!log) return 1;
  const Result<void> ran = Worker(std::move(work), std::move(*log)).run();
  if (!ran) std::fprintf(stderr, "%s\n", ran.error().what().c_str());
  return 1;
}

}  // namespace crosvm::test
