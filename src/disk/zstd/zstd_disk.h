#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "disk/disk.h"
#include "disk/zstd/frame_cache.h"

namespace crosvm {

/// What a zstd file makes (devices.md 4.2), at random. Read-only.
class ZstdDisk final : public Disk {
 public:
  /// `file` gives the bytes of the file that `index` was read from, `object` names it in the log.
  /// Errors: not_enough_memory.
  static Result<std::unique_ptr<ZstdDisk>> create(ZstdIndex index, std::unique_ptr<Disk> file,
                                                  EventLoop& loop, std::string object);
  ~ZstdDisk() override;

  uint64_t size() const override { return cache_->index().size(); }
  DiskTopology topology() const override { return cache_->topology(); }
  void start(DiskRequest& request) override;
  void submit() override;
  void on_batch(std::function<void()> told) override { batch_told_ = std::move(told); }

 private:
  class Operation;

  explicit ZstdDisk(std::unique_ptr<FrameCache> cache);
  int refusal(const DiskRequest& request) const;
  void end(Operation& operation);

  std::vector<std::unique_ptr<Operation>> operations_;  // all there are
  std::vector<Operation*> free_;
  std::vector<std::pair<DiskRequest*, int>> ended_;  // to be told of with the next submit
  std::function<void()> batch_told_;
  bool told_ = false;  // of a request since the last batch
  std::unique_ptr<FrameCache> cache_;
};

}  // namespace crosvm
