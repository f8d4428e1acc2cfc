#include "disk/qcow2/qcow2_commit.h"

#include <algorithm>
#include <cerrno>

#include "base/log.h"

namespace crosvm {

using Kind = DiskRequest::Kind;

void Qcow2Disk::Committer::Punch::piece_done(int) {  // it is a hint
  Committer& committer = committer_;
  std::erase(committer.punching_, this);
  Qcow2Metadata& metadata = *committer.disk_.metadata_;
  for (uint64_t i = 0; i < run.count; ++i) {
    // Should the block be gone meanwhile, that is done with the next commit.
    auto need = metadata.release(run.first + i);
    if (!need.is_nothing() && need.kind != Qcow2Need::Kind::kFailed) {
      metadata.freed().push_back({.first = run.first + i, .count = 1});
    }
  }
  committer.punches_.give_back(*this);
  committer.free_some();
}

void Qcow2Disk::Committer::ask(Waiter& waiter) {
  waiters_.push_back(&waiter);
  if (!is_running()) begin();
}

void Qcow2Disk::Committer::begin() {
  if (is_running()) return;
  step_ = Step::kDrain;
  if (disk_.in_flight_[disk_.epoch_ ^ 1] == 0) cut();
}

void Qcow2Disk::Committer::drained() {
  if (step_ == Step::kDrain) return cut();
  if (step_ == Step::kDrainFreed) {
    step_ = Step::kFree;
    free_some();
  }
}

void Qcow2Disk::Committer::go_on(int error) {
  if (step_ == Step::kFree) {
    waiting_ = false;
    if (error != 0) {  // a refcount block that cannot be read: the rest waits for the next commit
      auto& freed = disk_.metadata_->freed();
      freed.insert(freed.end(), freed_.begin(), freed_.end());
      freed_.clear();
    }
    return free_some();
  }
  if (error != 0) {
    if (step_ == Step::kCut) served_ = std::exchange(waiters_, {});
    return end_stages(error);
  }
  step_ == Step::kCut ? cut() : next_stage();
}

void Qcow2Disk::Committer::cut() {
  step_ = Step::kCut;
  error_ = 0;
  auto need = disk_.metadata_->begin_commit(commit_);
  if (need.kind == Qcow2Need::Kind::kFailed) {
    served_ = std::exchange(waiters_, {});
    return end_stages(need.error);
  }
  if (!need.is_nothing()) return disk_.wait_for(need, *this);
  served_ = std::exchange(waiters_, {});
  disk_.epoch_ ^= 1;
  stage_ = 0;
  flushed_data_ = false;
  step_ = Step::kGrow;
  uint64_t end = 0;
  for (const auto& writes : commit_.stages) {
    for (const MetadataWrite& write : writes)
      end = std::max(end, write.offset + write.bytes.size());
  }
  if (end > disk_.file_->size()) return disk_.wait_for_size(Target::kFile, end, *this);
  next_stage();
}

/// Writes what the next stage has, then flushes. At least once: the data must be stable before
/// anything refers to it. A damaged image stays as it is: after any stage it is no worse than
/// before.
void Qcow2Disk::Committer::next_stage() {
  if (is_damaged()) return end_stages(EIO);
  while (stage_ < commit_.kStages && commit_.stages[stage_].empty()) {
    if (stage_ == 2 && !flushed_data_) return flush();
    ++stage_;
  }
  if (stage_ == commit_.kStages) return end_stages(0);
  next_write_ = 0;
  step_ = Step::kWrite;
  disk_.metadata_->stage_begins(commit_, stage_);
  write_some();
}

void Qcow2Disk::Committer::write_some() {
  const auto& writes = commit_.stages[stage_];
  ++pieces_;
  while (error_ == 0 && !is_damaged() && next_write_ < writes.size() && pieces_ <= kMostPieces) {
    const MetadataWrite& write = writes[next_write_++];
    Piece& piece =
        disk_.take_piece(*this, Target::kFile, Kind::kWrite, write.offset, write.bytes.size());
    auto* bytes = const_cast<std::byte*>(write.bytes.data());  // it is only read
    piece.buffers.push_back(GuestSlice::over({bytes, write.bytes.size()}));
    ++pieces_;
    disk_.start_piece(piece);
  }
  if (--pieces_ > 0) return;
  if (error_ == 0 && is_damaged()) error_ = EIO;
  error_ != 0 ? end_stages(error_) : flush();
}

void Qcow2Disk::Committer::flush() {
  step_ = Step::kFlush;
  flush_ = flush_errors_.begin();
  ++pieces_;
  if (!std::exchange(flushed_data_, true) && disk_.data_file_) {
    ++pieces_;
    disk_.start_piece(disk_.take_piece(*this, Target::kDataFile, Kind::kFlush, 0, 0));
  }
  disk_.start_piece(disk_.take_piece(*this, Target::kFile, Kind::kFlush, 0, 0));
}

void Qcow2Disk::Committer::piece_done(int error) {
  if (error != 0) error_ = error;
  // A write that failed is written again, by the next commit.
  if (error != 0 && step_ == Step::kFlush) flush_errors_.failed(error);
  --pieces_;
  if (step_ == Step::kWrite) return write_some();
  if (pieces_ > 0) return;
  flush_errors_.end_untold(flush_);
  if (error_ != 0) return end_stages(error_);
  ++stage_;
  next_stage();
}

void Qcow2Disk::Committer::end_stages(int error) {
  if (error != 0 && served_.empty() && !is_damaged() && limit_.allows()) {
    log::warn("{}", Error::from_errno("bringing up to date", disk_.object_, error).what());
  }
  freed_ = std::exchange(commit_.freed, {});
  if (error != 0) commit_.freed = std::exchange(freed_, {});
  disk_.metadata_->end_commit(commit_, error == 0);
  commit_ = {};
  std::ranges::reverse(freed_);
  step_ = Step::kDrainFreed;
  wake(served_, error);
  if (freed_.empty() || disk_.in_flight_[disk_.epoch_ ^ 1] == 0) drained();
}

void Qcow2Disk::Committer::free_some() {
  if (freeing_) return;
  freeing_ = true;
  // Of a damaged image nothing is known to be unused.
  while (!waiting_ && !is_damaged() && !freed_.empty() && punching_.size() < kMostPieces) {
    if (!free_run()) break;
  }
  freeing_ = false;
  if (is_damaged()) freed_.clear();
  if (!waiting_ && freed_.empty() && punching_.empty()) end();
}

/// Clusters at the start of the next run: those with a single use left together, or else one.
bool Qcow2Disk::Committer::free_run() {
  Qcow2Metadata& metadata = *disk_.metadata_;
  ClusterRun& next = freed_.back();
  ClusterRun last_uses{.first = next.first};
  Qcow2Need need;
  while (last_uses.count < next.count) {
    uint64_t refcount = 0;
    need = metadata.refcounts().get(next.first + last_uses.count, refcount);
    if (!need.is_nothing() || refcount != 1) break;
    ++last_uses.count;
  }
  uint64_t done = last_uses.count;
  if (done > 0) {
    Punch& punch = punches_.take(*this);
    punch.run = last_uses;
    punching_.push_back(&punch);
    const uint32_t bits = disk_.layout_.cluster_bits;
    const uint64_t size = disk_.file_->size();
    const uint64_t from = std::min(last_uses.first << bits, size);
    const uint64_t to = std::min((last_uses.first + done) << bits, size);
    Piece& piece = disk_.take_piece(punch, Target::kFile, Kind::kDiscard, from, to - from);
    disk_.start_piece(piece);
  } else {
    if (need.is_nothing()) need = metadata.release(next.first);
    if (!need.is_nothing() && need.kind != Qcow2Need::Kind::kFailed) {
      waiting_ = true;
      disk_.wait_for(need, *this);
      return false;
    }
    done = 1;
  }
  next.first += done;
  next.count -= done;
  if (next.count == 0) freed_.pop_back();
  return true;
}

void Qcow2Disk::Committer::end() {
  step_ = Step::kIdle;
  if (!waiters_.empty()) begin();
}

void Qcow2Disk::Committer::abandon() {
  Qcow2Metadata& metadata = *disk_.metadata_;
  if (step_ != Step::kIdle && step_ < Step::kDrainFreed) metadata.end_commit(commit_, false);
  auto& freed = metadata.freed();
  freed.insert(freed.end(), freed_.begin(), freed_.end());
  for (const Punch* punch : punching_) freed.push_back(punch->run);
}

}  // namespace crosvm
