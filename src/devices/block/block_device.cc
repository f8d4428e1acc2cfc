#include "devices/block/block_device.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <cstring>
#include <limits>

#include "base/format.h"
#include "base/log.h"
#include "devices/block/block_resize.h"

namespace crosvm {
namespace {

constexpr uint32_t kSector = BlockConfig::kSectorSize;
constexpr uint32_t kDiscardAlignment = 128;    // sectors; 64 KiB
constexpr uint32_t kLargestLinuxBlock = 4096;  // a page
constexpr uint32_t kNoLimit = std::numeric_limits<uint32_t>::max();

// A field of the device's state.
constexpr uint32_t kStateCapacity = 1;  // u64, sectors

constexpr uint64_t bit(unsigned feature) { return uint64_t{1} << feature; }

template <class T>
T at_most(uint64_t value) {
  return static_cast<T>(std::min<uint64_t>(value, std::numeric_limits<T>::max()));
}

void describe_topology(const DiskTopology& topology, uint32_t block, virtio_blk_config& space) {
  if (topology.physical_block > block && std::has_single_bit(topology.physical_block / block)) {
    space.physical_block_exp =
        static_cast<uint8_t>(std::countr_zero(topology.physical_block / block));
  }
  space.alignment_offset = at_most<uint8_t>(topology.alignment_offset / block);
  space.min_io_size = at_most<uint16_t>(topology.minimum_io / block);
  space.opt_io_size = topology.optimal_io / block;
}

/// What is let through, as it is no mistake by itself, and is one most of the time.
void warn_of_oddities(uint64_t size, const BlockConfig& config) {
  const uint32_t block = config.block_size;
  if (size < kSector) {
    log::warn("{}: {} bytes make a disk without a sector; grow it with truncate -s", config.path,
              size);
  } else if (size % block != 0) {
    log::warn("{}: its size of {} bytes is not a multiple of its block size of {}", config.path,
              size, block);
  }
  if (!std::has_single_bit(block) || block > kLargestLinuxBlock) {
    log::warn("{}: block-size={}: Linux guests take 512, 1024, 2048 or 4096, most of them no other",
              config.path, block);
  }
}

}  // namespace

BlockDevice::BlockDevice(const BlockConfig& config, MakeDisk make_disk, DeviceContext context)
    : config_(config),
      make_disk_(std::move(make_disk)),
      loop_(context.loop),
      events_(context.events),
      rings_(std::move(context.rings)),
      threads_(kQueues) {
  queue_sizes_.fill(kQueueSize);
}

BlockDevice::~BlockDevice() = default;

Result<std::unique_ptr<BlockDevice>> BlockDevice::create(const BlockConfig& config,
                                                         MakeDisk make_disk,
                                                         DeviceContext context) {
  if (config.async_executor == AsyncExecutor::kUring && context.rings.empty()) {
    return fail(Error(std::errc::not_supported,
                      config.path + ": async-executor=uring, and there is no io_uring; use auto"));
  }
  std::unique_ptr<BlockDevice> device(
      new BlockDevice(config, std::move(make_disk), std::move(context)));
  std::optional<IoUring> ring;
  if (!config.multiple_workers && !device->rings_.empty()) ring = std::move(device->rings_.front());
  auto disk = TRY(device->make_disk_(device->loop_, std::move(ring)));
  device->describe(*disk);
  if (!config.multiple_workers) {
    device->worker_ = std::make_unique<BlockWorker>(
        device->loop_, std::move(disk), device->rules_, config.path,
        [events = &device->events_](const std::string& why) { events->needs_reset(why); });
  }
  return device;
}

void BlockDevice::describe(const Disk& disk) {
  rules_ = {.size = disk.size() / kSector * kSector,  // what is left over is out of reach
            .read_only = config_.read_only,
            .sparse = config_.sparse};
  if (config_.id) std::memcpy(rules_.id.data(), config_.id->data(), config_.id->size());
  warn_of_oddities(disk.size(), config_);
  space_.capacity = disk.size() / kSector;
  space_.seg_max = std::min<uint32_t>(IOV_MAX, kQueueSize - 2);
  space_.blk_size = config_.block_size;
  describe_topology(disk.topology(), config_.block_size, space_);
  space_.num_queues = kQueues;
  space_.max_discard_sectors = kNoLimit;
  space_.max_discard_seg = BlockRequest::kMostSegments;
  space_.discard_sector_alignment = kDiscardAlignment;
  space_.max_write_zeroes_sectors = kNoLimit;
  space_.max_write_zeroes_seg = BlockRequest::kMostSegments;
  space_.write_zeroes_may_unmap = 1;
}

uint32_t BlockDevice::device_type() const { return VIRTIO_ID_BLOCK; }

uint64_t BlockDevice::device_features() const {
  uint64_t features = bit(VIRTIO_BLK_F_SEG_MAX) | bit(VIRTIO_BLK_F_BLK_SIZE) |
                      bit(VIRTIO_BLK_F_TOPOLOGY) | bit(VIRTIO_BLK_F_MQ);
  if (config_.packed_queue) features |= bit(VIRTIO_F_RING_PACKED);
  if (config_.read_only) return features | bit(VIRTIO_BLK_F_RO);
  if (config_.sparse) features |= bit(VIRTIO_BLK_F_DISCARD);
  return features | bit(VIRTIO_BLK_F_FLUSH) | bit(VIRTIO_BLK_F_WRITE_ZEROES);
}

std::span<const std::byte> BlockDevice::config_space() const {
  return std::as_bytes(std::span(&space_, 1));
}

void BlockDevice::set_features(uint64_t features) {
  rules_.write_through = !config_.read_only && (features & bit(VIRTIO_BLK_F_FLUSH)) == 0;
  if (worker_) worker_->set_write_through(rules_.write_through);
  for (const auto& thread : threads_) {
    if (!thread) continue;
    thread->post(
        [is = rules_.write_through](BlockWorker& worker) { worker.set_write_through(is); });
  }
}

void BlockDevice::save_state(DeviceFields& to) const {
  to.set(kStateCapacity, uint64_t{space_.capacity});
}

Result<void> BlockDevice::load_state(const DeviceFields& from) {
  TRY(from.expect_only({kStateCapacity}));
  const auto sectors = TRY(from.get<uint64_t>(kStateCapacity));
  if (sectors == space_.capacity) return {};
  return fail(Error::invalid(
      format_text("{}: it has {} sectors, the disk of the saved device had {}; use the same disk",
                  config_.path, uint64_t{space_.capacity}, sectors)));
}

/// The thread of a queue, started now if it is not yet.
Result<BlockThread*> BlockDevice::thread_of(uint16_t index) {
  std::unique_ptr<BlockThread>& thread = threads_[index];
  if (thread) return thread.get();
  auto broken = [this, alive = std::weak_ptr(alive_)](const std::string& why) {
    loop_.post([this, alive, why] {
      if (!alive.expired()) events_.needs_reset(why);
    });
  };
  thread = TRY(BlockThread::create([&](EventLoop& loop) -> Result<std::unique_ptr<BlockWorker>> {
    std::optional<IoUring> ring;
    if (index < rings_.size()) ring = std::move(rings_[index]);
    auto disk = TRY(make_disk_(loop, std::move(ring)));
    return std::make_unique<BlockWorker>(loop, std::move(disk), rules_, config_.path, broken);
  }));
  if (resize_) resize_->joined(index);
  return thread.get();
}

Result<void> BlockDevice::start_queue(uint16_t index, Virtqueue queue) {
  if (worker_) return worker_->start_queue(index, std::move(queue));
  BlockThread* thread = TRY(thread_of(index));
  // Shared, as what is posted must be copyable.
  auto shared = std::make_shared<Virtqueue>(std::move(queue));
  thread->post([index, shared](BlockWorker& worker) {
    auto started = worker.start_queue(index, std::move(*shared));
    if (!started) worker.queue_broke(started.error());
  });
  return {};
}

void BlockDevice::stop_queue(uint16_t index, StopDone done) {
  if (worker_) return worker_->stop_queue(index, std::move(done));
  auto on_loop = [this, alive = std::weak_ptr(alive_), done = std::move(done)](RingPosition at) {
    loop_.post([alive, done, at] {
      if (!alive.expired()) done(at);
    });
  };
  threads_[index]->post(
      [index, on_loop](BlockWorker& worker) { worker.stop_queue(index, on_loop); });
}

// ---- size

void BlockDevice::command(DeviceCommand command, CommandDone done) {
  auto refuse = [this, &done](const Error& error) {
    Error named = error;
    done(fail(std::move(named).context(config_.path)));
  };
  if (command.name != "resize") return done(unknown_command(command));
  if (config_.read_only) {
    return refuse(Error(std::errc::read_only_file_system,
                        "this VM has it for reading alone; start the VM without ro to change its "
                        "size"));
  }
  if (resize_) {
    return refuse(
        Error(std::errc::device_or_resource_busy, "its size is being changed; try again later"));
  }
  const Result<uint64_t> bytes = read_size(command.arguments);
  if (!bytes) return refuse(bytes.error());
  if (auto begun = begin_resize(*bytes, done); !begun) refuse(begun.error());
}

Result<void> BlockDevice::begin_resize(uint64_t bytes, CommandDone done) {
  const bool has_thread =
      std::ranges::any_of(threads_, [](const auto& thread) { return thread != nullptr; });
  // Only what has the disk open can change it.
  if (!worker_ && !has_thread) TRY(thread_of(0));
  auto ended = [this, bytes, done = std::move(done)](Result<void> result) {
    end_resize(bytes, std::move(result), done);
  };
  resize_ = std::make_unique<Resize>(*this, bytes, std::move(ended));
  resize_->begin();
  return {};
}

void BlockDevice::end_resize(uint64_t bytes, Result<void> result, const CommandDone& done) {
  const auto over = std::move(resize_);  // which calls this, and goes with it
  if (!result) return done(fail(std::move(result).error().context(config_.path)));
  log::info("{}: it has {} bytes now instead of {}", config_.path, bytes, rules_.size);
  warn_of_oddities(bytes, config_);
  rules_.size = bytes;
  space_.capacity = bytes / kSector;
  events_.config_changed();
  done(std::string());
}

}  // namespace crosvm
