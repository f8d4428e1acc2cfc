#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "disk/disk.h"
#include "disk/qcow2/object_pool.h"
#include "disk/qcow2/qcow2_metadata.h"
#include "disk/qcow2/sync_file.h"

namespace crosvm {

/// What a qcow2 disk is made of.
struct Qcow2Parts {
  std::unique_ptr<Disk> file;       ///< the image itself, as a raw disk that can be resized
  std::unique_ptr<SyncFile> sync;   ///< the same, for opening and closing
  std::unique_ptr<Disk> backing;    ///< or null: reads as zeroes
  std::unique_ptr<Disk> data_file;  ///< exactly where the header has_data_file()
  bool read_only = false;
  std::string object;  ///< names the image in errors and logs
  Qcow2Metadata::Limits limits = {};
};

/// A disk whose bytes are in a qcow2 image. What was flushed survives a loss of power at any
/// moment, and the image is valid whenever that is. Destroyed without requests in flight it leaves
/// no cluster unused; that waits for the file.
class Qcow2Disk : public Disk {
 public:
  /// Errors: those of Qcow2Metadata::open.
  static Result<std::unique_ptr<Qcow2Disk>> create(Qcow2Parts parts);
  ~Qcow2Disk() override;

  uint64_t size() const override { return size_; }
  DiskTopology topology() const override;
  void start(DiskRequest& request) override;
  void submit() override { pump(); }
  void on_batch(std::function<void()> told) override { batch_told_ = std::move(told); }
  /// Refused with ENOTSUP while the image has internal snapshots of another size to keep.
  void resize(uint64_t bytes, ResizeDone done) override;

 private:
  /// Goes on when what it waits for has come, or failed with `error`.
  class Waiter {
   public:
    virtual void go_on(int error) = 0;

   protected:
    ~Waiter() = default;
  };
  class Piece;
  class PieceOwner;
  class Operation;
  class Allocation;
  class CompressedRead;
  class Load;
  class Committer;
  class Resize;
  class DamageMark;
  enum class Target : uint8_t { kFile, kBacking, kDataFile };

  Qcow2Disk(Qcow2Parts parts, std::unique_ptr<Qcow2Metadata> metadata);

  // Requests to the disks below.
  Disk& disk_of(Target target);
  Target data_target() const;
  Piece& take_piece(PieceOwner& owner, Target target, DiskRequest::Kind kind, uint64_t offset,
                    uint64_t length);
  void start_piece(Piece& piece);
  void piece_ended(Piece& piece, int error);

  /// No cluster that is referred to now is used for something else before it is released.
  unsigned hold_clusters() {
    ++in_flight_[epoch_];
    return epoch_;
  }
  void release_clusters(unsigned epoch);

  // What is waited for.
  void wait_for(const Qcow2Need& need, Waiter& waiter);
  void wait_for_size(Target target, uint64_t bytes, Waiter& waiter);
  void grow(Target target, bool ahead);
  void grown(Target target, bool ahead, int error);
  void begin_load(Load& load);
  void load_ended(Load& load, int error);
  void begin_waiting_compressed();
  void begin_waiting_allocations();
  void wait_for_commit(Waiter& waiter);
  void commit_if_heavy();
  Allocation* allocation_at(uint64_t first, uint64_t end);
  static void wake(std::vector<Waiter*>& waiters, int error);

  // The end of requests.
  void ended(Operation& operation, int error);
  bool tell_ended();
  void pump();
  void mark_damaged();
  void close_image();
  int refusal(const DiskRequest& request) const;
  /// Bytes of the backing file that the disk shows from `offset` on; 0 past its end.
  uint64_t backing_bytes_from(uint64_t offset) const;
  void trim_file();

  struct Growth {
    uint64_t wanted = 0;  // bytes
    bool running = false;
    std::vector<Waiter*> waiters;
  };

  const std::string object_;
  const std::unique_ptr<Qcow2Metadata> metadata_;
  const Qcow2Layout& layout_;
  const std::unique_ptr<SyncFile> sync_;
  const uint64_t first_file_bytes_;  // of the file when it was opened
  uint64_t size_;
  const bool opened_read_only_;
  bool read_only_;

  ObjectPool<Piece> pieces_;
  ObjectPool<Operation> operations_;
  ObjectPool<Allocation> allocations_;
  std::vector<Allocation*> running_allocations_;
  uint64_t fill_bytes_ = 0;  // that allocations hold for what is around the guest's bytes
  std::deque<Allocation*> waiting_allocations_;
  ObjectPool<CompressedRead> compressed_reads_;
  size_t running_compressed_ = 0;
  bool beginning_compressed_ = false;
  std::deque<CompressedRead*> waiting_compressed_;
  Qcow2Entry unpacked_entry_;  // whose bytes `unpacked_` are; none is 0
  std::vector<std::byte> unpacked_;
  std::unordered_map<uint64_t, std::unique_ptr<Load>> loads_;
  uint64_t load_bytes_ = 0;  // that those hold which have begun
  std::deque<Load*> waiting_loads_;
  std::array<Growth, 3> growths_;  // by target
  // Holders of clusters, by whether they began before the last cut: what a commit frees is not used
  // again before those have ended.
  std::array<uint64_t, 2> in_flight_ = {};
  unsigned epoch_ = 0;
  std::unique_ptr<Committer> committer_;
  std::unique_ptr<Resize> resize_;
  std::unique_ptr<DamageMark> damage_mark_;  // once the image is found damaged
  std::vector<std::pair<DiskRequest*, int>> ended_;
  bool pumping_ = false;
  bool pump_again_ = false;
  std::function<void()> batch_told_;

  std::unique_ptr<Disk> backing_;
  std::unique_ptr<Disk> data_file_;
  std::unique_ptr<Disk> file_;  // these go first: they may hold buffers of the rest
};

}  // namespace crosvm
