#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/log_limit.h"
#include "disk/disk.h"

namespace crosvm {

/// A raw disk that was taken for one because of its first bytes. It must stay one: a guest that
/// writes the magic of another format there would have a disk, at the next start, that names files
/// of the host. Such a write fails with EIO.
class GuardedDisk : public Disk {
 public:
  /// `object` names the image in the log.
  GuardedDisk(std::unique_ptr<Disk> disk, std::string object);
  ~GuardedDisk() override;

  uint64_t size() const override { return disk_->size(); }
  DiskTopology topology() const override { return disk_->topology(); }
  void start(DiskRequest& request) override;
  void submit() override;
  void on_batch(std::function<void()> told) override { disk_->on_batch(std::move(told)); }
  void resize(uint64_t bytes, ResizeDone done) override { disk_->resize(bytes, std::move(done)); }

 private:
  class FirstBytes;

  const std::string object_;
  LogLimit limit_{"image formats that a guest writes"};
  std::vector<DiskRequest*> refused_;  // to be told with the next submit
  std::vector<std::unique_ptr<FirstBytes>> writes_;
  std::unique_ptr<Disk> disk_;  // goes first: it may hold the rest
};

}  // namespace crosvm
