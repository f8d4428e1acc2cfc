#include "disk/raw_disk.h"

#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "base/format.h"
#include "disk/raw_operation.h"

namespace crosvm {

using Kind = DiskRequest::Kind;

/// ftruncate, then, for space that is to be there, fallocate. Of a block device: a look at its
/// size.
class RawDisk::Resize final : public FileDone {
 public:
  Resize(RawDisk& disk, uint64_t bytes, ResizeDone done)
      : disk_(disk), bytes_(bytes), former_(disk.size_), done_(std::move(done)) {}

  void begin() {
    if (disk_.facts_.is_block_device) return look();
    truncate(Step::kTruncate, bytes_);
  }

  void file_done(int64_t result) override {
    switch (step_) {
      case Step::kLook:
        return seen(result);
      case Step::kTruncate:
        if (result < 0) return refuse("changing its size", result);
        disk_.size_ = bytes_;
        if (disk_.options_.sparse || bytes_ <= former_) return end({});
        return allocate();
      case Step::kAllocate:
        if (result >= 0) return end({});
        failure_ = result;
        disk_.size_ = former_;
        return truncate(Step::kUndo, former_);
      case Step::kUndo:
        return refuse("allocating its new space", failure_);
    }
  }

 private:
  enum class Step : uint8_t { kLook, kTruncate, kAllocate, kUndo };

  void queue(Step step, FileOperation operation) {
    step_ = step;
    operation.done = this;
    disk_.file_->queue(operation);
  }
  void look() {
    queue(Step::kLook, {.kind = FileOperation::Kind::kSeek, .offset = 0, .flags = SEEK_END});
  }
  void truncate(Step step, uint64_t bytes) {
    queue(step, {.kind = FileOperation::Kind::kTruncate, .length = bytes});
  }
  void allocate() {
    queue(Step::kAllocate,
          {.kind = FileOperation::Kind::kAllocate, .offset = former_, .length = bytes_ - former_});
  }
  void seen(int64_t result) {
    if (result < 0) return refuse("finding out its size", result);
    const auto present = static_cast<uint64_t>(result);
    if (present != bytes_) {
      return end(fail(
          Error(std::errc::not_supported,
                format_text(
                    "it is a block device of {} bytes; change that on the host first, and ask for "
                    "the size that it has then",
                    present))));
    }
    disk_.size_ = bytes_;
    end({});
  }
  void refuse(std::string_view doing, int64_t result) {
    end(fail(Error::from_errno(doing, format_text("from {} to {} bytes", former_, bytes_),
                               static_cast<int>(-result))));
  }
  void end(const Result<void>& result) { std::exchange(done_, nullptr)(result); }

  RawDisk& disk_;
  const uint64_t bytes_;
  const uint64_t former_;
  Step step_ = Step::kTruncate;
  int64_t failure_ = 0;
  ResizeDone done_;
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

void RawDisk::resize(uint64_t bytes, ResizeDone done) {
  if (options_.read_only) {
    return done(fail(Error(std::errc::read_only_file_system, "it is open for reading alone")));
  }
  if (bytes % facts_.alignment.offset != 0) {
    return done(
        fail(Error::invalid(format_text("{} bytes are not a multiple of {}, which direct I/O needs",
                                        bytes, facts_.alignment.offset))));
  }
  if (bytes > INT64_MAX) {
    return done(fail(Error(std::errc::file_too_large,
                           format_text("{} bytes are more than a file can have", bytes))));
  }
  resize_ = std::make_unique<Resize>(*this, bytes, std::move(done));
  resize_->begin();
  file_->submit();
}

}  // namespace crosvm
