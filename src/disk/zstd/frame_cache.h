#pragma once

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/log_limit.h"
#include "disk/disk.h"
#include "disk/zstd/buffer_pool.h"
#include "disk/zstd/zstd_index.h"

struct ZSTD_DCtx_s;

namespace crosvm {

/// Decoded frames of a zstd file, those used last. Whoever wants one that is being read waits
/// together with those who wanted it before. One frame is decoded at a time, and others of the
/// loop get their turn before the next.
class FrameCache {
 public:
  static constexpr uint64_t kLeastBytes = 32 << 20;     ///< of decoded frames; at least two
  static constexpr uint64_t kLeastReadBytes = 8 << 20;  ///< on their way; at least one frame

  /// Told of a frame that it has waited for.
  class User {
   public:
    /// `bytes` is what the frame makes, valid during the call; or `error` is an errno.
    virtual void frame_done(size_t frame, std::span<const std::byte> bytes, int error) = 0;

   protected:
    ~User() = default;
  };

  /// `object` names the file in the log. Errors: not_enough_memory.
  static Result<std::unique_ptr<FrameCache>> create(ZstdIndex index, std::unique_ptr<Disk> file,
                                                    EventLoop& loop, std::string object);
  /// Nobody is told any more.
  ~FrameCache();

  const ZstdIndex& index() const { return index_; }
  DiskTopology topology() const { return file_->topology(); }

  /// The frame, valid until the next call or event, or nothing: then `user` is told later, never
  /// during this call.
  std::span<const std::byte> get(size_t frame, User& user);
  /// Begins to read what has been asked for.
  void submit();
  /// `told` is called after users have been told of a frame.
  void on_batch(std::function<void()> told) { batch_told_ = std::move(told); }

 private:
  struct FreeContext {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  /// A frame that is here or on its way.
  class Slot final : public DiskRequest {
   public:
    Slot(FrameCache& cache, size_t number) : cache(cache), number(number) {}
    void disk_done(int error) override { cache.read_done(*this, error); }

    FrameCache& cache;
    const size_t number;
    bool is_ready = false;
    int error = 0;    // of reading it
    PoolBuffer from;  // while it is read and decoded
    PoolBuffer decoded;
    std::vector<User*> users;
    std::list<Slot*>::iterator use;  // when it is ready
  };

  FrameCache(ZstdIndex index, std::unique_ptr<Disk> file, EventLoop& loop, std::string object);
  void start_reads();
  bool make_room(uint64_t bytes);
  void start_read(Slot& slot);
  void read_done(Slot& slot, int error);
  void decode_soon();
  void decode_next();
  int decode(Slot& slot);
  void tell(Slot& slot, int error);

  const ZstdIndex index_;
  EventLoop& loop_;
  const std::string object_;
  const uint64_t most_bytes_;
  const uint64_t most_read_bytes_;
  LogLimit limit_{"damaged zstd frames"};
  std::unique_ptr<ZSTD_DCtx_s, FreeContext> context_;
  BufferPool buffers_;
  std::unordered_map<size_t, std::unique_ptr<Slot>> slots_;
  std::list<Slot*> ready_;      // the one used last is the first
  std::deque<Slot*> waiting_;   // to be read
  std::deque<Slot*> ended_;     // read, to be decoded
  uint64_t held_bytes_ = 0;     // of decoded frames, also those on their way
  uint64_t reading_bytes_ = 0;  // of frames as they are in the file, until they are decoded
  bool decoding_soon_ = false;
  bool telling_ = false;  // of a frame, which stays meanwhile
  std::function<void()> batch_told_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
  std::unique_ptr<Disk> file_;  // goes first: it may hold buffers of the rest
};

}  // namespace crosvm
