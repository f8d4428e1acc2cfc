#include "disk/zstd/frame_cache.h"

#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "disk/zstd/xxh64.h"

namespace crosvm {

void FrameCache::FreeContext::operator()(ZSTD_DCtx_s* context) const { ZSTD_freeDCtx(context); }

FrameCache::FrameCache(ZstdIndex index, std::unique_ptr<Disk> file, EventLoop& loop,
                       std::string object)
    : index_(std::move(index)),
      loop_(loop),
      object_(std::move(object)),
      most_bytes_(std::max(kLeastBytes, 2 * index_.longest_frame())),
      most_read_bytes_(std::max(kLeastReadBytes, index_.longest_file_bytes())),
      context_(ZSTD_createDCtx()),
      file_(std::move(file)) {}

FrameCache::~FrameCache() = default;

Result<std::unique_ptr<FrameCache>> FrameCache::create(ZstdIndex index, std::unique_ptr<Disk> file,
                                                       EventLoop& loop, std::string object) {
  std::unique_ptr<FrameCache> cache(
      new FrameCache(std::move(index), std::move(file), loop, std::move(object)));
  if (!cache->context_) return fail(Error::from_errno("decoding", cache->object_, ENOMEM));
  return cache;
}

std::span<const std::byte> FrameCache::get(size_t frame, User& user) {
  std::unique_ptr<Slot>& slot = slots_[frame];
  if (slot && slot->is_ready) {
    ready_.splice(ready_.begin(), ready_, slot->use);
    return slot->decoded.first(index_.length(frame));
  }
  if (!slot) {
    slot = std::make_unique<Slot>(*this, frame);
    waiting_.push_back(slot.get());
  }
  slot->users.push_back(&user);
  return {};
}

// Reading -------------------------------------------------------------------------------------

void FrameCache::submit() {
  if (telling_) return;
  start_reads();
  file_->submit();
}

void FrameCache::start_reads() {
  while (!waiting_.empty()) {
    Slot& slot = *waiting_.front();
    const uint64_t file_bytes = index_.frame(slot.number).file_bytes;
    if (reading_bytes_ + file_bytes > most_read_bytes_) return;
    if (!make_room(index_.length(slot.number))) return;
    waiting_.pop_front();
    reading_bytes_ += file_bytes;
    held_bytes_ += index_.length(slot.number);
    start_read(slot);
  }
}

/// Whether a frame of `bytes` fits beside those that are held.
bool FrameCache::make_room(uint64_t bytes) {
  while (held_bytes_ + bytes > most_bytes_) {
    if (ready_.empty()) return false;
    Slot& oldest = *ready_.back();
    ready_.pop_back();
    held_bytes_ -= index_.length(oldest.number);
    buffers_.give_back(std::move(oldest.decoded));
    slots_.erase(oldest.number);
  }
  return true;
}

void FrameCache::start_read(Slot& slot) {
  const ZstdIndex::Frame& frame = index_.frame(slot.number);
  slot.kind = DiskRequest::Kind::kRead;
  slot.offset = frame.file_offset;
  slot.length = frame.file_bytes;
  slot.from = buffers_.take(frame.file_bytes);
  slot.decoded = buffers_.take(index_.length(slot.number));
  if (!slot.from.memory || !slot.decoded.memory) return read_done(slot, ENOMEM);
  slot.buffers = {GuestSlice::over(slot.from.first(frame.file_bytes))};
  file_->start(slot);
}

void FrameCache::read_done(Slot& slot, int error) {
  slot.error = error;
  ended_.push_back(&slot);
  decode_soon();
}

// Decoding ------------------------------------------------------------------------------------

void FrameCache::decode_soon() {
  if (std::exchange(decoding_soon_, true)) return;
  loop_.post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.expired()) return;
    decoding_soon_ = false;
    decode_next();
  });
}

void FrameCache::decode_next() {
  Slot& slot = *ended_.front();
  ended_.pop_front();
  if (!ended_.empty()) decode_soon();
  const int error = slot.error != 0 ? slot.error : decode(slot);
  reading_bytes_ -= index_.frame(slot.number).file_bytes;
  buffers_.give_back(std::exchange(slot.from, {}));
  telling_ = true;
  tell(slot, error);
  telling_ = false;
  submit();
  if (batch_told_) batch_told_();
}

/// An errno, or 0.
int FrameCache::decode(Slot& slot) {
  const ZstdIndex::Frame& frame = index_.frame(slot.number);
  const std::span<std::byte> to = slot.decoded.first(index_.length(slot.number));
  const size_t made = ZSTD_decompressDCtx(context_.get(), to.data(), to.size(),
                                          slot.from.memory.get(), frame.file_bytes);
  const char* wrong = nullptr;
  if (ZSTD_isError(made) != 0) {
    wrong = ZSTD_getErrorName(made);
  } else if (made != to.size()) {
    wrong = "it makes less than its index says";
  } else if (index_.has_checksums() && static_cast<uint32_t>(xxh64(to)) != frame.checksum) {
    wrong = "its checksum is not that of the seek table";
  }
  if (wrong == nullptr) return 0;
  if (limit_.allows()) {
    log::error("{}: the zstd frame at byte {} is damaged: {}", object_, frame.file_offset, wrong);
  }
  return EIO;
}

void FrameCache::tell(Slot& slot, int error) {
  const size_t number = slot.number;
  const std::vector<User*> users = std::exchange(slot.users, {});
  if (error == 0) {
    slot.is_ready = true;
    ready_.push_front(&slot);
    slot.use = ready_.begin();
    for (User* user : users) user->frame_done(number, slot.decoded.first(index_.length(number)), 0);
    return;
  }
  held_bytes_ -= index_.length(number);
  buffers_.give_back(std::move(slot.decoded));
  slots_.erase(number);
  for (User* user : users) user->frame_done(number, {}, error);
}

}  // namespace crosvm
