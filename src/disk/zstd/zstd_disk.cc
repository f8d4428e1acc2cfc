#include "disk/zstd/zstd_disk.h"

#include <algorithm>
#include <cerrno>

#include "disk/buffer_slices.h"

namespace crosvm {

using Kind = DiskRequest::Kind;

/// A read on its way: waits for a few of its frames at a time.
class ZstdDisk::Operation final : public FrameCache::User {
 public:
  explicit Operation(ZstdDisk& disk) : disk_(disk) {}

  void assign(DiskRequest& request) {
    request_ = &request;
    next_ = disk_.cache_->index().find(request.offset);
    error_ = 0;
  }
  DiskRequest& request() const { return *request_; }
  int error() const { return error_; }

  /// Takes the frames that are here and asks for others. Whether all is done.
  bool go_on() {
    const ZstdIndex& index = disk_.cache_->index();
    const uint64_t end = request_->offset + request_->length;
    while (error_ == 0 && waiting_ < kMostFrames && next_ < index.frames() &&
           index.frame(next_).start < end) {
      const size_t frame = next_++;
      const std::span<const std::byte> bytes = disk_.cache_->get(frame, *this);
      if (bytes.empty()) {
        ++waiting_;
      } else {
        copy(frame, bytes);
      }
    }
    return waiting_ == 0;
  }

  void frame_done(size_t frame, std::span<const std::byte> bytes, int error) override {
    --waiting_;
    if (error == 0) {
      copy(frame, bytes);
    } else if (error_ == 0) {
      error_ = error;
    }
    if (go_on()) disk_.end(*this);
  }

 private:
  static constexpr size_t kMostFrames = 4;  // that it waits for

  void copy(size_t frame, std::span<const std::byte> bytes) {
    const uint64_t start = disk_.cache_->index().frame(frame).start;
    const uint64_t first = std::max(start, request_->offset);
    const uint64_t last = std::min(start + bytes.size(), request_->offset + request_->length);
    copy_to_buffers(request_->buffers, first - request_->offset,
                    bytes.subspan(first - start, last - first));
  }

  ZstdDisk& disk_;
  DiskRequest* request_ = nullptr;
  size_t next_ = 0;  // frame to ask for
  size_t waiting_ = 0;
  int error_ = 0;  // the first one
};

ZstdDisk::ZstdDisk(std::unique_ptr<FrameCache> cache) : cache_(std::move(cache)) {
  cache_->on_batch([this] { submit(); });
}

ZstdDisk::~ZstdDisk() = default;

Result<std::unique_ptr<ZstdDisk>> ZstdDisk::create(ZstdIndex index, std::unique_ptr<Disk> file,
                                                   EventLoop& loop, std::string object) {
  auto cache = TRY(FrameCache::create(std::move(index), std::move(file), loop, std::move(object)));
  return std::unique_ptr<ZstdDisk>(new ZstdDisk(std::move(cache)));
}

/// The errno of a request that cannot be, or 0.
int ZstdDisk::refusal(const DiskRequest& request) const {
  if (request.kind == Kind::kFlush) return 0;
  if (request.offset > size() || request.length > size() - request.offset) return EINVAL;
  return request.kind != Kind::kRead && request.kind != Kind::kExtent ? EROFS : 0;
}

void ZstdDisk::start(DiskRequest& request) {
  const int error = refusal(request);
  // What a frame makes is not known before it is decoded: all counts as data.
  if (request.kind == Kind::kExtent) request.extent = {.length = request.length};
  if (error != 0 || request.kind != Kind::kRead || request.length == 0) {
    return ended_.emplace_back(&request, error), void();
  }
  if (free_.empty()) {
    operations_.push_back(std::make_unique<Operation>(*this));
    free_.push_back(operations_.back().get());
  }
  Operation& operation = *free_.back();
  operation.assign(request);
  if (operation.go_on()) {
    ended_.emplace_back(&request, 0);
  } else {
    free_.pop_back();
  }
}

void ZstdDisk::end(Operation& operation) {
  told_ = true;
  free_.push_back(&operation);
  operation.request().disk_done(operation.error());
}

void ZstdDisk::submit() {
  while (!ended_.empty()) {
    for (auto [request, error] : std::exchange(ended_, {})) {
      told_ = true;
      request->disk_done(error);
    }
  }
  cache_->submit();
  if (std::exchange(told_, false) && batch_told_) batch_told_();
}

}  // namespace crosvm
