#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "disk/async_file.h"
#include "disk/bounce_buffers.h"
#include "disk/disk.h"
#include "disk/raw_image.h"

namespace crosvm {

struct RawDiskOptions {
  bool read_only = false;
  bool sparse = true;      ///< space may be given back to the host
  bool dontcache = false;  ///< RWF_DONTCACHE where the file system has it
};

/// A disk whose bytes are those of a regular file or block device.
class RawDisk : public Disk {
 public:
  /// `file` does the work on the image that `facts` are about. Errors: invalid_argument when direct
  /// I/O cannot write the image's last block; `object` names it.
  static Result<std::unique_ptr<RawDisk>> create(std::unique_ptr<AsyncFile> file,
                                                 const RawImageFacts& facts,
                                                 const RawDiskOptions& options,
                                                 const std::string& object);
  ~RawDisk() override;

  uint64_t size() const override { return size_; }
  DiskTopology topology() const override { return facts_.topology; }
  void start(DiskRequest& request) override;
  void submit() override;
  void on_batch(std::function<void()> told) override;
  /// Of a regular file; requests on their way within both sizes are not disturbed. Without `sparse`
  /// the host's space for what is new is allocated. A block device is no longer or shorter for it:
  /// `bytes` must be the size that it has by now.
  void resize(uint64_t bytes, ResizeDone done) override;

 private:
  class Operation;
  class Resize;

  RawDisk(std::unique_ptr<AsyncFile> file, const RawImageFacts& facts,
          const RawDiskOptions& options);
  Operation& take_operation(DiskRequest& request);
  int refusal(const DiskRequest& request) const;
  bool wants_to_be_alone(const DiskRequest& request) const;
  bool may_begin_write(bool alone) const;
  void begin(Operation& operation);
  void end(Operation& operation, int error);
  void end_soon(Operation& operation, int error) { ended_.emplace_back(&operation, error); }
  void go_on_waiting();

  std::vector<std::unique_ptr<Operation>> operations_;  // all there are
  std::vector<Operation*> free_;
  std::vector<std::pair<Operation*, int>> ended_;  // to be told of with the next submit
  std::deque<Operation*> waiting_writes_;          // for one that must be alone to end
  std::deque<Operation*> waiting_buffers_;
  size_t writes_ = 0;         // running; counted where the image is open for direct I/O
  bool write_alone_ = false;  // the running one must be alone
  BounceBuffers bounce_;
  std::function<void()> batch_told_;

  const RawImageFacts facts_;
  const RawDiskOptions options_;
  uint64_t size_;
  std::unique_ptr<Resize> resize_;  // the last one
  // What the file system turned out not to do.
  bool punches_holes_ = true;
  bool zeroes_ranges_ = true;
  bool uncached_reads_;
  bool uncached_writes_;
  std::unique_ptr<AsyncFile> file_;  // goes first: it may hold buffers of the rest
};

}  // namespace crosvm
