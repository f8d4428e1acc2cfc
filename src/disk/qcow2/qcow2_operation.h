#pragma once

#include <cstdint>
#include <vector>

#include "disk/flush_errors.h"
#include "disk/qcow2/qcow2_disk.h"

namespace crosvm {

/// Told when a request to a disk below has ended.
class Qcow2Disk::PieceOwner {
 public:
  virtual void piece_done(int error) = 0;
  /// Before that, of kExtent: what the disk below says.
  virtual void take_extent(const DiskRequest::Extent&) {}

 protected:
  ~PieceOwner() = default;
};

/// A request to a disk below.
class Qcow2Disk::Piece final : public DiskRequest {
 public:
  explicit Piece(Qcow2Disk& disk) : disk_(disk) {}
  void disk_done(int error) override { disk_.piece_ended(*this, error); }

  PieceOwner* owner = nullptr;
  Target target = Target::kFile;
  unsigned epoch = 0;

 private:
  Qcow2Disk& disk_;
};

/// One request on its way, or a read of our own. It is translated from its start on, a run of like
/// bytes at a time; a step that lacks something is tried again when that has come. What has begun
/// goes on meanwhile. Only so much is on its way at a time.
class Qcow2Disk::Operation final : private Waiter, public PieceOwner {
 public:
  explicit Operation(Qcow2Disk& disk) : disk_(disk) {}

  void begin(DiskRequest& request, int refusal);
  DiskRequest& request() const { return *request_; }
  void piece_done(int error) override;
  void take_extent(const DiskRequest::Extent& below) override;
  /// Another piece that will be told of by `piece_done`.
  void add_piece() { ++pieces_; }
  /// Moves `length` bytes of buffers to `to`; zeroes where it writes those.
  void take_buffers(uint64_t length, std::vector<GuestSlice>& to);

 private:
  static constexpr size_t kMostPieces = 32;  // on their way at a time

  void go_on(int error) override;
  void run();
  bool step();
  bool read_step();
  void read_run(const MappedRun& run);
  void read_below(Target target, uint64_t offset, uint64_t length);
  void skip_as_zeroes(uint64_t length);
  bool write_step();
  bool has_own(const Qcow2Entry& entry) const;
  bool write_in_place(const MappedRun& run);
  bool allocate_step();
  uint64_t count_to_allocate(const CachedTable* table, uint64_t first, uint64_t end) const;
  bool needs_new_cluster(const Qcow2Entry& entry, uint64_t guest) const;
  bool zero_step();
  bool zero_clusters(CachedTable* table, uint64_t end);
  bool zero_in_data_file(CachedTable* table, uint64_t end);
  Qcow2Entry zeroed(const Qcow2Entry& entry, uint64_t guest) const;
  bool flush_step();
  bool extent_step();
  bool broken(uint64_t guest);
  bool is_lost(const MappedRun& run) const;
  bool lost(const MappedRun& run);
  bool need(const Qcow2Need& need);
  bool fail_with(int error);
  bool wait(const Qcow2Need& need);
  bool wait_for_commit();

  Qcow2Disk& disk_;
  DiskRequest* request_ = nullptr;
  uint64_t position_ = 0;
  uint64_t end_ = 0;
  size_t buffer_ = 0;  // the next, and how much of it is taken
  uint64_t taken_ = 0;
  size_t pieces_ = 0;
  int error_ = 0;
  bool waiting_ = false;
  bool held_back_ = false;  // has as many pieces as it may
  bool flushed_ = false;
  FlushErrors::Flush flush_;  // of a flush
};

/// Writes of clusters that have no place of their own yet: what is around the guest's bytes is
/// read, all is written, and only then the L2 entries say so.
class Qcow2Disk::Allocation final : private PieceOwner, private DiskRequest {
 public:
  explicit Allocation(Qcow2Disk& disk) : disk_(disk) {}

  struct Place {
    CachedTable* table = nullptr;
    uint64_t guest = 0;  ///< where the first cluster begins
    uint64_t count = 0;  ///< clusters
    uint64_t host = 0;   ///< bytes
    bool is_new = false;
    bool is_fresh = false;  ///< reads as zeroes
  };
  /// Takes [from, to) from `operation`'s buffers, bytes of the disk.
  void begin(Operation& operation, const Place& place, uint64_t from, uint64_t to);
  /// Of the disk's old bytes, what must be read.
  uint64_t bytes_to_fill() const;
  void begin_fill();
  bool overlaps(uint64_t first, uint64_t end) const {
    return first < place_.guest + place_.count * disk_.layout_.cluster_size() && place_.guest < end;
  }
  const Place& place() const { return place_; }

  std::vector<Waiter*> waiters;

 private:
  void find_fill();
  bool is_zero(uint64_t from, uint64_t to) const;
  void read_fill(uint64_t from, uint64_t to, size_t at);
  void disk_done(int error) override;
  void piece_done(int error) override;
  void write();
  void append_fill(std::vector<GuestSlice>& buffers, uint64_t from, uint64_t to, bool zero,
                   size_t at);
  int set_entries();
  void end(int error);

  Qcow2Disk& disk_;
  Operation* operation_ = nullptr;
  Place place_;
  // Bytes of the disk: [fill_from_, from_) and [to_, fill_to_) are around the guest's.
  uint64_t fill_from_ = 0;
  uint64_t from_ = 0;
  uint64_t to_ = 0;
  uint64_t fill_to_ = 0;
  bool head_zero_ = false;
  bool tail_zero_ = false;
  bool tail_next_ = false;  // the tail is yet to be read
  std::vector<GuestSlice> data_;
  std::vector<std::byte> fill_;
};

/// Unpacks one compressed cluster and copies a part of it.
class Qcow2Disk::CompressedRead final : private PieceOwner {
 public:
  explicit CompressedRead(Qcow2Disk& disk) : disk_(disk) {}
  /// `length` bytes at `offset` in the cluster go to the next of `operation`'s buffers.
  void begin(Operation& operation, const Qcow2Entry& entry, uint64_t offset, uint64_t length);
  void begin_read();

 private:
  void piece_done(int error) override;
  void copy();
  void end(int error);

  Qcow2Disk& disk_;
  Operation* operation_ = nullptr;
  Qcow2Entry entry_;
  uint64_t offset_ = 0;
  uint64_t length_ = 0;
  unsigned epoch_ = 0;
  std::vector<GuestSlice> buffers_;
  std::vector<std::byte> packed_;
};

}  // namespace crosvm
