#include "disk/raw_disk.h"

#include <cerrno>
#include <cstdint>
#include <utility>

#include "base/format.h"
#include "disk/raw_operation.h"

namespace crosvm {

using Kind = DiskRequest::Kind;

/// ftruncate, then, for space that is to be there, fallocate.
class RawDisk::Resize final : public FileDone {
 public:
  Resize(RawDisk& disk, uint64_t bytes, std::function<void(int)> done)
      : disk_(disk), bytes_(bytes), done_(std::move(done)) {}

  void begin() {
    disk_.file_->queue({.kind = FileOperation::Kind::kTruncate, .length = bytes_, .done = this});
  }

  void file_done(int64_t result) override {
    if (result < 0) return end(static_cast<int>(-result));
    const uint64_t former = std::exchange(disk_.size_, bytes_);
    if (disk_.options_.sparse || bytes_ <= former || std::exchange(allocating_, true))
      return end(0);
    disk_.file_->queue({.kind = FileOperation::Kind::kAllocate,
                        .offset = former,
                        .length = bytes_ - former,
                        .done = this});
  }

 private:
  void end(int error) { std::exchange(done_, nullptr)(error); }

  RawDisk& disk_;
  const uint64_t bytes_;
  bool allocating_ = false;
  std::function<void(int)> done_;
};

RawDisk::RawDisk(std::unique_ptr<AsyncFile> file, const RawImageFacts& facts,
                 const RawDiskOptions& options)
    : facts_(facts),
      options_(options),
      size_(facts.size),
      uncached_reads_(options.dontcache),
      uncached_writes_(options.dontcache),
      file_(std::move(file)) {
  file_->on_batch([this] {
    if (!ended_.empty()) submit();  // requests that were started by what has just ended
    if (batch_told_) batch_told_();
  });
}

RawDisk::~RawDisk() = default;

Result<std::unique_ptr<RawDisk>> RawDisk::create(std::unique_ptr<AsyncFile> file,
                                                 const RawImageFacts& facts,
                                                 const RawDiskOptions& options,
                                                 const std::string& object) {
  const DirectAlignment& unit = facts.alignment;
  if (!options.read_only && facts.size % unit.offset != 0) {
    return fail(Error::invalid(
        format_text("{}: its size of {} bytes is not a multiple of {}, which direct I/O needs; "
                    "grow it with truncate, or leave out direct",
                    object, facts.size, unit.offset)));
  }
  if (unit.offset > BounceBuffers::kSize || unit.memory > BounceBuffers::kSize) {
    return fail(Error(std::errc::not_supported,
                      format_text("{}: direct I/O needs blocks of {} bytes; leave out direct",
                                  object, unit.offset)));
  }
  return std::unique_ptr<RawDisk>(new RawDisk(std::move(file), facts, options));
}

void RawDisk::on_batch(std::function<void()> told) { batch_told_ = std::move(told); }

RawDisk::Operation& RawDisk::take_operation(DiskRequest& request) {
  if (free_.empty()) {
    operations_.push_back(std::make_unique<Operation>(*this));
    free_.push_back(operations_.back().get());
  }
  Operation& operation = *free_.back();
  free_.pop_back();
  operation.assign(request);
  return operation;
}

/// The errno of a request that cannot be, or 0.
int RawDisk::refusal(const DiskRequest& request) const {
  if (request.kind == Kind::kFlush) return 0;
  if (request.offset > size_ || request.length > size_ - request.offset) return EINVAL;
  const bool changes = request.kind != Kind::kRead && request.kind != Kind::kExtent;
  return changes && options_.read_only ? EROFS : 0;
}

void RawDisk::start(DiskRequest& request) {
  Operation& operation = take_operation(request);
  operation.counted = operation.alone = false;
  if (int error = refusal(request)) return end_soon(operation, error);
  if (request.kind != Kind::kFlush && request.length == 0) return end_soon(operation, 0);
  const bool changes =
      request.kind != Kind::kRead && request.kind != Kind::kFlush && request.kind != Kind::kExtent;
  if (facts_.alignment.offset == 1 || !changes) {
    return operation.begin();
  }
  if (may_begin_write(wants_to_be_alone(request))) return begin(operation);
  waiting_writes_.push_back(&operation);
}

// A write of part of a block reads the block, changes it and writes it. Another write to that block
// meanwhile would be undone, so such a write has the disk for itself.

bool RawDisk::wants_to_be_alone(const DiskRequest& request) const {
  uint64_t unit = facts_.alignment.offset;
  bool changes_bytes = request.kind == Kind::kWrite || request.kind == Kind::kWriteZeroes;
  return changes_bytes && (request.offset % unit != 0 || request.length % unit != 0);
}

bool RawDisk::may_begin_write(bool alone) const {
  return waiting_writes_.empty() && !write_alone_ && !(alone && writes_ > 0);
}

void RawDisk::begin(Operation& operation) {
  operation.counted = true;
  operation.alone = wants_to_be_alone(operation.request());
  ++writes_;
  write_alone_ = operation.alone;
  operation.begin();
}

void RawDisk::end(Operation& operation, int error) {
  operation.release();
  if (operation.counted) {
    --writes_;
    if (operation.alone) write_alone_ = false;
  }
  DiskRequest& request = operation.request();
  free_.push_back(&operation);
  if (!waiting_buffers_.empty() || !waiting_writes_.empty()) go_on_waiting();
  request.disk_done(error);
}

void RawDisk::go_on_waiting() {
  if (!waiting_buffers_.empty()) {
    Operation* next = waiting_buffers_.front();
    waiting_buffers_.pop_front();
    next->go_on();
  }
  while (!waiting_writes_.empty()) {
    Operation& next = *waiting_writes_.front();
    bool alone = wants_to_be_alone(next.request());
    if (write_alone_ || (alone && writes_ > 0)) return;
    waiting_writes_.pop_front();
    begin(next);
  }
}

void RawDisk::submit() {
  bool told = false;
  while (!ended_.empty()) {
    for (auto [operation, error] : std::exchange(ended_, {})) {
      end(*operation, error);
      told = true;
    }
  }
  file_->submit();
  if (told && batch_told_) batch_told_();
}

// ---- size

void RawDisk::resize(uint64_t bytes, std::function<void(int error)> done) {
  if (options_.read_only) return done(EROFS);
  if (facts_.is_block_device) return done(bytes == size_ ? 0 : ENOTSUP);
  if (bytes % facts_.alignment.offset != 0 || bytes > INT64_MAX) return done(EINVAL);
  resize_ = std::make_unique<Resize>(*this, bytes, std::move(done));
  resize_->begin();
  file_->submit();
}

}  // namespace crosvm
