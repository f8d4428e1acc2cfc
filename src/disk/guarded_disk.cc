#include "disk/guarded_disk.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "disk/image_format.h"

namespace crosvm {

/// A write to the first bytes, from a copy of what is to stand there: the guest may change its own
/// after the check.
class GuardedDisk::FirstBytes final : public DiskRequest {
 public:
  FirstBytes(GuardedDisk& disk, DiskRequest& original) : disk_(disk), original_(original) {
    kind = Kind::kWrite;
    offset = original.offset;
    length = original.length;
    size_t copied = 0;
    buffers.push_back(GuestSlice::over({}));  // of the copy, when its length is known
    for (const GuestSlice& slice : original.buffers) {
      const size_t part = std::min(slice.size(), bytes_.size() - copied);
      CHECK(slice.read_bytes(0, std::span(bytes_).subspan(copied, part)));
      copied += part;
      if (part < slice.size()) buffers.push_back(*slice.sub(part, slice.size() - part));
    }
    copied_ = copied;
    buffers.front() = GuestSlice::over(std::span(bytes_).first(copied));
  }

  /// Whether another format than raw would be found there.
  bool is_magic() const {
    // A write of fewer bytes could make up a magic together with others.
    if (offset != 0 || copied_ < kImageMagicBytes) return true;
    return image_format_of(std::span(bytes_).first(copied_)) != ImageFormat::kRaw;
  }

  void disk_done(int error) override {
    DiskRequest& original = original_;
    std::erase_if(disk_.writes_, [this](const auto& write) { return write.get() == this; });
    original.disk_done(error);
  }

 private:
  GuardedDisk& disk_;
  DiskRequest& original_;
  std::array<std::byte, 512> bytes_;
  size_t copied_ = 0;
};

GuardedDisk::GuardedDisk(std::unique_ptr<Disk> disk, std::string object)
    : object_(std::move(object)), disk_(std::move(disk)) {}

GuardedDisk::~GuardedDisk() = default;

void GuardedDisk::start(DiskRequest& request) {
  if (request.kind != DiskRequest::Kind::kWrite || request.offset >= kImageMagicBytes ||
      request.length == 0) {
    return disk_->start(request);
  }
  auto write = std::make_unique<FirstBytes>(*this, request);
  if (!write->is_magic()) {
    disk_->start(*write);
    writes_.push_back(std::move(write));
    return;
  }
  if (limit_.allows()) {
    log::warn(
        "{}: the guest wants to write what looks like the start of another image format, at the "
        "start of a disk that was found to be raw; refused; if it may, give format=raw",
        object_);
  }
  refused_.push_back(&request);
}

void GuardedDisk::submit() {
  while (!refused_.empty()) {
    for (DiskRequest* request : std::exchange(refused_, {})) request->disk_done(EIO);
  }
  disk_->submit();
}

}  // namespace crosvm
