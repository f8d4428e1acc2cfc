// Requests to a disk in a qcow2 image of any kind, in any order, several at a time: they do what
// they do to a flat array of bytes. The input: which image, then requests; more of them follow that
// it stands for without saying so, as what costs is the image. At the end the power may be cut,
// after which the image must be valid.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "base/log.h"
#include "disk/flat_model.h"
#include "disk/qcow2/memory_file.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_create.h"
#include "disk/qcow2/qcow2_disk.h"
#include "fuzz_input.h"

namespace crosvm {
namespace {

using test::FlatModel;
using test::MemoryDisk;
using test::MemoryFile;
using test::MemoryQueue;
using Kind = DiskRequest::Kind;
using Bytes = std::vector<std::byte>;

constexpr uint64_t kMostBytes = 160 << 10;
constexpr size_t kMostRunning = 8;
constexpr size_t kMoreBytes = 1500;  // some 300 steps

uint64_t g_requests = 0;
uint64_t g_images = 0;

struct Request final : DiskRequest {
  void disk_done(int error) override {
    CHECK(result < 0);
    result = error;
  }
  Bytes bytes;
  int result = -1;
};

/// An image, and the bytes that its disk must show.
class Oracle {
 public:
  Oracle(FuzzInput& input, uint64_t seed) : input_(input), queue_(seed) {
    choose();
    CHECK(create_qcow2(*test::make_memory_sync(file_), options_, "fuzz.qcow2").has_value());
    file_.flush();
    open();
    ++g_images;
  }

  void run() {
    while (!input_.empty()) step();
    if (queue_.random()() % 8 == 0) return cut_power();
    drain();
    read_all();
    close();
    expect_sound(0);
    if (options_.raw_data) {
      CHECK(data_file_->bytes().size() >= model_.size());
      CHECK(std::memcmp(data_file_->bytes().data(), model_.bytes().data(), model_.size()) == 0);
    }
  }

 private:
  void choose() {
    const uint32_t kind = input_.number(1);
    const uint32_t more = input_.number(1);
    options_.version = kind % 8 == 0 ? 2 : 3;
    options_.cluster_size = 512ULL << (kind >> 4) % 9;
    if (options_.version == 3) {
      options_.refcount_bits = 1U << more % 7;
      options_.extended_l2 = options_.cluster_size >= 16384 && (more & 8) != 0;
      options_.lazy_refcounts = (more & 16) != 0;
    }
    options_.size = (1 + input_.number(2) % (kMostBytes / 512)) * 512;
    if (kind % 8 == 1 || kind % 8 == 0) {
      make_backing((1 + input_.number(2) % (kMostBytes / 512)) * 512);
    } else if (kind % 8 == 2) {
      options_.data_file_name = "data";
      options_.raw_data = (more & 32) != 0;
      data_file_ = std::make_unique<MemoryFile>(options_.raw_data ? options_.size : 0);
    } else {
      options_.preallocation = static_cast<Qcow2Preallocation>(more >> 6);
    }
    Bytes bytes = backing_ ? backing_->bytes() : Bytes();
    bytes.resize(options_.size);
    model_.start(std::move(bytes));
    limits_ = {.l2_bytes = (more & 64) != 0 ? 0U : 16U << 20, .block_bytes = 1 << 20};
  }

  void make_backing(uint64_t size) {
    Bytes bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(1 + i / 512 % 250);
    backing_ = std::make_unique<MemoryFile>();
    backing_->set_bytes(std::move(bytes));
    options_.backing_name = "backing";
    options_.backing_format = "raw";
  }

  void open() {
    Qcow2Parts parts{.file = std::make_unique<MemoryDisk>(queue_, file_),
                     .sync = test::make_memory_sync(file_, &is_dead_),
                     .backing = {},
                     .data_file = {},
                     .read_only = false,
                     .object = "fuzz.qcow2",
                     .limits = limits_};
    if (backing_) parts.backing = std::make_unique<MemoryDisk>(queue_, *backing_);
    if (data_file_) parts.data_file = std::make_unique<MemoryDisk>(queue_, *data_file_);
    auto disk = Qcow2Disk::create(std::move(parts));
    CHECK(disk.has_value());
    disk_ = *std::move(disk);
    CHECK(disk_->size() == model_.size());
  }

  void close() { disk_.reset(); }

  void expect_sound(uint64_t most_leaks) {
    auto report = check_qcow2(*test::make_memory_sync(file_), "fuzz.qcow2", Qcow2Repair::kNothing);
    CHECK(report.has_value());
    CHECK(report->errors == 0 && report->leaks <= most_leaks);
  }

  void step() {
    const uint32_t what = input_.number(1);
    for (uint32_t i = what >> 5; i > 0; --i) queue_.end_one();
    reap();
    if (what == 0) return reopen();  // seldom: it reads and checks the whole image
    switch (what % 16) {
      case 1:
        return resize((1 + input_.number(2) % (kMostBytes / 512)) * 512);
      case 2:
      case 3:
        return start(Kind::kFlush, 0, 0);
      default:
        break;
    }
    if (running_.size() == kMostRunning) return;
    // Often where others are, or at the edges of sectors and clusters.
    uint64_t offset = input_.number(2) * (what % 16 < 8 ? 512ULL : 3ULL) % model_.size();
    uint64_t length = 1 + input_.number(1) * ((what & 16) != 0 ? 512ULL : 13ULL);
    length = std::min<uint64_t>(length, model_.size() - offset);
    if (overlaps(offset, length)) return;
    const Kind kinds[] = {Kind::kWrite,       Kind::kWrite,   Kind::kRead,
                          Kind::kWriteZeroes, Kind::kDiscard, Kind::kExtent};
    start(kinds[what % 6], offset, length);
  }

  bool overlaps(uint64_t offset, uint64_t length) const {
    return std::ranges::any_of(running_, [&](const auto& request) {
      return offset < request->offset + request->length && request->offset < offset + length;
    });
  }

  void start(Kind kind, uint64_t offset, uint64_t length) {
    ++g_requests;
    auto& request = running_.emplace_back(std::make_unique<Request>());
    request->kind = kind;
    request->offset = offset;
    request->length = length;
    request->may_unmap = (g_requests & 1) != 0;
    if (kind == Kind::kRead || kind == Kind::kWrite) {
      request->bytes.resize(length, static_cast<std::byte>(g_requests % 251));
      request->buffers = {GuestSlice::over(request->bytes)};
    }
    disk_->start(*request);
    disk_->submit();
  }

  void reap() {
    for (const auto& request : running_) {
      if (request->result >= 0) ended(*request);
    }
    std::erase_if(running_, [](const auto& request) { return request->result >= 0; });
  }

  void ended(const Request& request) {
    CHECK(request.result == 0);
    CHECK(!model_.ended(request, request.bytes));
  }

  void drain() {
    while (queue_.end_one()) {
    }
    reap();
    CHECK(running_.empty());
  }

  /// What discards have left counts from now on.
  void read_all() {
    Request request;
    request.length = model_.size();
    request.bytes.resize(model_.size());
    request.buffers = {GuestSlice::over(request.bytes)};
    disk_->start(request);
    disk_->submit();
    while (request.result < 0 && queue_.end_one()) {
    }
    CHECK(request.result == 0);
    CHECK(!model_.settle(std::move(request.bytes)));
  }

  void reopen() {
    drain();
    read_all();
    close();
    expect_sound(0);
    open();
    read_all();
  }

  void resize(uint64_t bytes) {
    drain();
    int result = -1;
    disk_->resize(bytes, [&](const Result<void>& ended) { result = errno_of(ended); });
    while (result < 0 && queue_.end_one()) {
    }
    CHECK(result == 0);
    model_.resize(bytes);
  }

  void cut_power() {
    is_dead_ = true;
    Bytes left = file_.cut_power(queue_.random());
    close();
    is_dead_ = false;
    file_.set_bytes(std::move(left));
    expect_sound(UINT64_MAX);
  }

  FuzzInput& input_;
  MemoryQueue queue_;
  MemoryFile file_;
  std::unique_ptr<MemoryFile> backing_;
  std::unique_ptr<MemoryFile> data_file_;
  bool is_dead_ = false;
  Qcow2CreateOptions options_;
  Qcow2Metadata::Limits limits_ = {};
  FlatModel model_;
  std::vector<std::unique_ptr<Request>> running_;
  std::unique_ptr<Qcow2Disk> disk_;
};

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  static const bool ready = [] {
    std::atexit(
        [] { std::fprintf(stderr, "oracle: %lu requests to %lu images\n", g_requests, g_images); });
    return log::configure({.filter = "off", .use_syslog = false}).has_value();
  }();
  CHECK(ready);
  if (size < 6) return 0;
  uint64_t seed = size;
  for (size_t i = 0; i < size; ++i) seed = seed * 31 + data[i];
  std::vector<uint8_t> all(data, data + size);
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < kMoreBytes; ++i) all.push_back(static_cast<uint8_t>(random()));
  FuzzInput input(all);
  Oracle(input, seed).run();
  return 0;
}
