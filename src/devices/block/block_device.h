#pragma once

#include <linux/virtio_blk.h>

#include <array>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "devices/block/block_config.h"
#include "devices/block/block_thread.h"
#include "devices/block/block_worker.h"
#include "virtio/device_factory.h"

namespace crosvm {

/// A disk for the guest (virtio 1.3 §5.2; docs/devices/block.md).
class BlockDevice : public VirtioDevice {
 public:
  static constexpr uint16_t kQueues = 16;
  static constexpr uint16_t kQueueSize = 256;
  /// Makes the disk, all of whose calls are made on that loop.
  using MakeDisk =
      std::function<Result<std::unique_ptr<Disk>>(EventLoop& loop, std::optional<IoUring> ring)>;

  /// Errors: those of making the disk.
  static Result<std::unique_ptr<BlockDevice>> create(const BlockConfig& config, MakeDisk make_disk,
                                                     DeviceContext context);
  ~BlockDevice() override;

  uint32_t device_type() const override;
  std::span<const uint16_t> queue_sizes() const override { return queue_sizes_; }
  uint64_t device_features() const override;
  std::span<const std::byte> config_space() const override;
  void set_features(uint64_t features) override;
  /// "resize": the arguments are the new size in bytes. No request is in flight while it changes:
  /// those of before are done by then, and those after it find the new end.
  void command(DeviceCommand command, CommandDone done) override;
  Result<void> start_queue(uint16_t index, Virtqueue queue) override;
  void stop_queue(uint16_t index, StopDone done) override;
  /// The disk itself is no part of it: only that it is one of the same size.
  void save_state(DeviceFields& to) const override;
  Result<void> load_state(const DeviceFields& from) override;

 private:
  BlockDevice(const BlockConfig& config, MakeDisk make_disk, DeviceContext context);
  class Resize;
  void describe(const Disk& disk);
  Result<void> begin_resize(uint64_t bytes, CommandDone done);
  void end_resize(uint64_t bytes, Result<void> result, const CommandDone& done);
  Result<BlockThread*> thread_of(uint16_t index);

  const BlockConfig config_;
  const MakeDisk make_disk_;
  EventLoop& loop_;
  DeviceEvents& events_;
  std::vector<IoUring> rings_;  // one for each worker that may come
  std::array<uint16_t, kQueues> queue_sizes_;
  virtio_blk_config space_ = {};
  BlockRules rules_;
  std::unique_ptr<BlockWorker> worker_;                // of all queues, unless there are threads
  std::vector<std::unique_ptr<BlockThread>> threads_;  // by queue, made when it first starts
  std::unique_ptr<Resize> resize_;                     // while there is one
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
};

/// The descriptors that a disk lives on.
struct BlockResources {
  Fd image;
  template <class V>
  void visit(V&& each) {
    each(image);
  }
};

struct BlockFactory {
  static constexpr std::string_view kName = "block";
  static constexpr std::string_view kPolicy = "block_device";
  static constexpr bool kIdempotent = true;
  using Config = BlockConfig;
  using Resources = BlockResources;
  static Result<Config> parse(const KeyValues& text) { return BlockConfig::parse(text); }
  /// Opens and locks the image. Errors name the file and what helps.
  static Result<Resources> open(const Config& config);
  static size_t rings(const Config& config);
  static std::unique_ptr<FileBroker> broker(const Config& config);
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources resources,
                                                      DeviceContext context);
};

}  // namespace crosvm
