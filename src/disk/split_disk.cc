#include "disk/split_disk.h"

#include <algorithm>
#include <cerrno>

#include "disk/split_operation.h"

namespace crosvm {

using Kind = DiskRequest::Kind;

SplitDisk::SplitDisk(uint64_t size, bool read_only, std::vector<std::unique_ptr<Disk>> below)
    : size_(size), read_only_(read_only) {
  for (std::unique_ptr<Disk>& disk : below) {
    disk->on_batch([this] { submit(); });
    below_.push_back({.disk = std::move(disk)});
  }
}

SplitDisk::~SplitDisk() = default;

DiskTopology SplitDisk::topology() const {
  DiskTopology most;
  for (const Below& below : below_) {
    const DiskTopology its = below.disk->topology();
    most.physical_block = std::max(most.physical_block, its.physical_block);
    most.minimum_io = std::max(most.minimum_io, its.minimum_io);
  }
  return most;
}

/// The errno of a request that cannot be, or 0.
int SplitDisk::refusal(const DiskRequest& request) const {
  if (request.kind == Kind::kFlush) return 0;
  if (request.offset > size_ || request.length > size_ - request.offset) return EINVAL;
  const bool changes = request.kind != Kind::kRead && request.kind != Kind::kExtent;
  return changes && read_only_ ? EROFS : 0;
}

void SplitDisk::start(DiskRequest& request) {
  if (free_.empty()) {
    operations_.push_back(std::make_unique<Operation>(*this));
    free_.push_back(operations_.back().get());
  }
  Operation& operation = *free_.back();
  free_.pop_back();
  operation.assign(request);
  if (const int error = refusal(request)) {
    ended_.emplace_back(&operation, error);
  } else if (operation.go_on()) {
    ended_.emplace_back(&operation, operation.error());
  }
}

void SplitDisk::start_below(size_t below, DiskRequest& request) {
  below_[below].disk->start(request);
  if (std::ranges::find(started_, below) == started_.end()) started_.push_back(below);
}

void SplitDisk::end(Operation& operation, int error) {
  told_ = true;
  free_.push_back(&operation);
  operation.request().disk_done(error);
}

/// Also when a disk below has told of a batch: what ended there may have started more elsewhere.
void SplitDisk::submit() {
  if (std::exchange(submitting_, true)) return;
  while (!ended_.empty() || !started_.empty()) {
    for (auto [operation, error] : std::exchange(ended_, {})) end(*operation, error);
    for (const size_t below : std::exchange(started_, {})) below_[below].disk->submit();
  }
  submitting_ = false;
  if (std::exchange(told_, false) && batch_told_) batch_told_();
}

}  // namespace crosvm
