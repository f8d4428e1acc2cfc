#include "disk/qcow2/qcow2_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/format.h"
#include "base/log.h"
#include "disk/qcow2/qcow2_commit.h"
#include "disk/qcow2/qcow2_operation.h"
#include "disk/qcow2/qcow2_resize.h"

namespace crosvm {

using Kind = DiskRequest::Kind;

namespace {

constexpr uint64_t kLeastGrowth = 1 << 20;
constexpr uint64_t kMostGrowth = 64 << 20;
constexpr uint64_t kFileUnit = 64 << 10;       // of the file's size: suits direct I/O
constexpr uint64_t kMostLoadBytes = 16 << 20;  // of tables on their way

}  // namespace

/// A table on its way into a cache.
class Qcow2Disk::Load final : public PieceOwner {
 public:
  Load(Qcow2Disk& disk, const Qcow2Need& need)
      : need(need), size(disk.layout_.cluster_size()), disk_(disk) {}
  void piece_done(int error) override { disk_.load_ended(*this, error); }

  const Qcow2Need need;
  const uint64_t size;
  std::unique_ptr<std::byte[]> bytes;  // once it has begun
  std::vector<Waiter*> waiters;

 private:
  Qcow2Disk& disk_;
};

/// Writes the bit that says so into the header of a damaged image.
class Qcow2Disk::DamageMark final : public PieceOwner {
 public:
  DamageMark(Qcow2Disk& disk, std::vector<std::byte> header)
      : disk_(disk), header_(std::move(header)) {}
  void begin() {
    Piece& piece = disk_.take_piece(*this, Target::kFile, Kind::kWrite, 0, header_.size());
    piece.buffers.push_back(GuestSlice::over(header_));
    disk_.start_piece(piece);
  }
  void piece_done(int) override {
    if (std::exchange(flushed_, true)) return;
    disk_.start_piece(disk_.take_piece(*this, Target::kFile, Kind::kFlush, 0, 0));
  }

 private:
  Qcow2Disk& disk_;
  std::vector<std::byte> header_;
  bool flushed_ = false;
};

Result<std::unique_ptr<Qcow2Disk>> Qcow2Disk::create(Qcow2Parts parts) {
  auto metadata =
      TRY(Qcow2Metadata::open(*parts.sync, parts.object, parts.read_only, parts.limits));
  CHECK(metadata->header().has_data_file() == (parts.data_file != nullptr));
  return std::unique_ptr<Qcow2Disk>(new Qcow2Disk(std::move(parts), std::move(metadata)));
}

Qcow2Disk::Qcow2Disk(Qcow2Parts parts, std::unique_ptr<Qcow2Metadata> metadata)
    : object_(parts.object),
      metadata_(std::move(metadata)),
      layout_(metadata_->layout()),
      sync_(std::move(parts.sync)),
      first_file_bytes_(parts.file->size()),
      size_(metadata_->header().size),
      opened_read_only_(parts.read_only),
      read_only_(parts.read_only),
      committer_(std::make_unique<Committer>(*this)),
      backing_(std::move(parts.backing)),
      data_file_(std::move(parts.data_file)),
      file_(std::move(parts.file)) {
  metadata_->refcounts().set_file_bytes(file_->size());
  for (Disk* disk : {file_.get(), backing_.get(), data_file_.get()}) {
    if (disk != nullptr) disk->on_batch([this] { pump(); });
  }
}

Qcow2Disk::~Qcow2Disk() {
  file_.reset();
  data_file_.reset();
  backing_.reset();
  if (opened_read_only_) return;
  if (!metadata_->damage().found()) close_image();
  if (!metadata_->damage().found()) return;
  // The mark may not have got into the file, or not even begun.
  const std::vector<std::byte> header = metadata_->damaged_header();
  Result<void> marked;
  if (!header.empty()) marked = sync_->write_at(0, header);
  if (marked) marked = sync_->flush();
  if (!marked) log::error("marking the qcow2 image as corrupt: {}", marked.error().what());
}

void Qcow2Disk::close_image() {
  committer_->abandon();
  for (const Allocation* allocation : running_allocations_) {
    if (!allocation->place().is_new) continue;
    metadata_->freed().push_back({.first = allocation->place().host >> layout_.cluster_bits,
                                  .count = allocation->place().count});
  }
  if (Result<void> done = metadata_->commit_and_wait(*sync_); !done) {
    log::error("closing the qcow2 image: {}", done.error().what());
    return;
  }
  trim_file();
}

/// The file has grown ahead of what is used.
void Qcow2Disk::trim_file() {
  const uint64_t first = layout_.clusters(first_file_bytes_);
  uint64_t end = layout_.clusters(sync_->size());
  const uint64_t before = end;
  for (; end > first; --end) {
    uint64_t refcount = 1;
    if (!metadata_->refcounts().get(end - 1, refcount).is_nothing() || refcount != 0) break;
  }
  if (end == before) return;
  const uint64_t unit = kFileUnit - 1;  // for those who open it for direct I/O
  const uint64_t bytes =
      std::max(((end << layout_.cluster_bits) + unit) & ~unit, first_file_bytes_);
  if (bytes < sync_->size()) (void)sync_->resize(bytes);
}

DiskTopology Qcow2Disk::topology() const {
  return {.physical_block = file_->topology().physical_block};
}

// ---- requests

int Qcow2Disk::refusal(const DiskRequest& request) const {
  if (request.kind == Kind::kFlush) return 0;
  if (request.offset > size_ || request.length > size_ - request.offset) return EINVAL;
  const bool changes = request.kind != Kind::kRead && request.kind != Kind::kExtent;
  return changes && opened_read_only_ ? EROFS : 0;
}

void Qcow2Disk::start(DiskRequest& request) {
  operations_.take(*this).begin(request, refusal(request));
}

void Qcow2Disk::ended(Operation& operation, int error) {
  ended_.emplace_back(&operation.request(), error);
  operations_.give_back(operation);
}

bool Qcow2Disk::tell_ended() {
  if (ended_.empty()) return false;
  for (auto [request, error] : std::exchange(ended_, {})) request->disk_done(error);
  return true;
}

/// Begins what was started below, and tells of what has ended, until there is no more.
void Qcow2Disk::pump() {
  if (pumping_) {
    pump_again_ = true;
    return;
  }
  pumping_ = true;
  bool told = false;
  do {
    pump_again_ = false;
    if (metadata_->damage().found()) mark_damaged();
    while (tell_ended()) told = true;
    file_->submit();
    if (backing_) backing_->submit();
    if (data_file_) data_file_->submit();
  } while (pump_again_ || !ended_.empty());
  pumping_ = false;
  if (told && batch_told_) batch_told_();
}

void Qcow2Disk::mark_damaged() {
  read_only_ = true;
  // A commit would write over the mark, or free what the marked header names: it ends first.
  if (damage_mark_ || committer_->is_writing()) return;
  std::vector<std::byte> header;
  if (!opened_read_only_) header = metadata_->damaged_header();
  damage_mark_ = std::make_unique<DamageMark>(*this, std::move(header));
  if (!opened_read_only_ && layout_.version >= 3) damage_mark_->begin();
}

uint64_t Qcow2Disk::backing_bytes_from(uint64_t offset) const {
  const uint64_t end = backing_ ? std::min(backing_->size(), layout_.cluster_end(size_)) : 0;
  return offset < end ? end - offset : 0;
}

// ---- pieces

Disk& Qcow2Disk::disk_of(Target target) {
  return target == Target::kFile ? *file_ : target == Target::kBacking ? *backing_ : *data_file_;
}

Qcow2Disk::Target Qcow2Disk::data_target() const {
  return layout_.external_data ? Target::kDataFile : Target::kFile;
}

Qcow2Disk::Piece& Qcow2Disk::take_piece(PieceOwner& owner, Target target, Kind kind,
                                        uint64_t offset, uint64_t length) {
  Piece& piece = pieces_.take(*this);
  piece.owner = &owner;
  piece.target = target;
  piece.kind = kind;
  piece.offset = offset;
  piece.length = length;
  piece.may_unmap = false;
  piece.buffers.clear();
  return piece;
}

void Qcow2Disk::start_piece(Piece& piece) {
  piece.epoch = hold_clusters();
  disk_of(piece.target).start(piece);
}

void Qcow2Disk::piece_ended(Piece& piece, int error) {
  PieceOwner& owner = *piece.owner;
  const unsigned epoch = piece.epoch;
  if (piece.kind == Kind::kExtent && error == 0) owner.take_extent(piece.extent);
  pieces_.give_back(piece);
  owner.piece_done(error);
  release_clusters(epoch);
}

void Qcow2Disk::release_clusters(unsigned epoch) {
  if (--in_flight_[epoch] == 0 && epoch != epoch_) committer_->drained();
}

// ---- waiting

void Qcow2Disk::wake(std::vector<Waiter*>& waiters, int error) {
  for (Waiter* waiter : std::exchange(waiters, {})) waiter->go_on(error);
}

void Qcow2Disk::wait_for(const Qcow2Need& need, Waiter& waiter) {
  if (need.kind == Qcow2Need::Kind::kFileSize) {
    return wait_for_size(Target::kFile, need.value, waiter);
  }
  auto [at, is_new] = loads_.try_emplace(need.value);
  if (is_new) at->second = std::make_unique<Load>(*this, need);
  Load& load = *at->second;
  load.waiters.push_back(&waiter);
  if (!is_new) return;
  if (load_bytes_ + load.size > kMostLoadBytes) return waiting_loads_.push_back(&load);
  begin_load(load);
}

void Qcow2Disk::begin_load(Load& load) {
  load_bytes_ += load.size;
  load.bytes = std::make_unique_for_overwrite<std::byte[]>(load.size);
  const uint64_t size = file_->size();
  const uint64_t at = std::min(load.need.value, size);
  const uint64_t there = std::min(load.size, size - at);
  std::memset(load.bytes.get() + there, 0, load.size - there);
  Piece& piece = take_piece(load, Target::kFile, Kind::kRead, at, there);
  piece.buffers.push_back(GuestSlice::over({load.bytes.get(), there}));
  start_piece(piece);
}

void Qcow2Disk::load_ended(Load& load, int error) {
  auto node = loads_.extract(load.need.value);  // lives until the end of this
  load_bytes_ -= load.size;
  if (!waiting_loads_.empty()) {
    Load* next = waiting_loads_.front();
    waiting_loads_.pop_front();
    begin_load(*next);
  }
  if (error == 0) metadata_->add_loaded(load.need, std::move(load.bytes));
  wake(load.waiters, error);
}

void Qcow2Disk::wait_for_size(Target target, uint64_t bytes, Waiter& waiter) {
  Growth& growth = growths_[static_cast<size_t>(target)];
  growth.wanted = std::max(growth.wanted, bytes);
  growth.waiters.push_back(&waiter);
  if (!growth.running) grow(target, target == Target::kFile);
}

/// `ahead`: by more than is needed, for those who need more soon.
void Qcow2Disk::grow(Target target, bool ahead) {
  Growth& growth = growths_[static_cast<size_t>(target)];
  growth.running = true;
  uint64_t bytes = growth.wanted;
  if (ahead) bytes += std::clamp(bytes / 16, kLeastGrowth, kMostGrowth);
  if (target == Target::kFile) bytes = (bytes + kFileUnit - 1) & ~(kFileUnit - 1);
  disk_of(target).resize(bytes, [this, target, ahead](const Result<void>& result) {
    grown(target, ahead, errno_of(result));
  });
}

void Qcow2Disk::grown(Target target, bool ahead, int error) {
  Growth& growth = growths_[static_cast<size_t>(target)];
  if (error == ENOTSUP) {  // a block device; what it has become longer does not read as zeroes
    error = ENOSPC;
  } else if (error != 0 && ahead) {
    return grow(target, false);
  }
  growth.running = false;
  if (target == Target::kFile) metadata_->refcounts().set_file_bytes(file_->size());
  growth.wanted = 0;
  wake(growth.waiters, error);  // who needs still more asks again
}

void Qcow2Disk::wait_for_commit(Waiter& waiter) { committer_->ask(waiter); }

void Qcow2Disk::commit_if_heavy() {
  if (metadata_->is_heavy() && !read_only_) committer_->begin();
}

Qcow2Disk::Allocation* Qcow2Disk::allocation_at(uint64_t first, uint64_t end) {
  auto found = std::ranges::find_if(running_allocations_, [&](const Allocation* allocation) {
    return allocation->overlaps(first, end);
  });
  return found == running_allocations_.end() ? nullptr : *found;
}

}  // namespace crosvm
