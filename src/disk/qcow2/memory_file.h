#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "disk/disk.h"
#include "disk/qcow2/sync_file.h"

namespace crosvm::test {

/// A file in memory that remembers what of it is on stable storage. For tests of formats.
class MemoryFile {
 public:
  explicit MemoryFile(uint64_t size = 0) : bytes_(size), stable_(size) {}
  MemoryFile(const MemoryFile& other) = default;

  const std::vector<std::byte>& bytes() const { return bytes_; }
  void set_bytes(std::vector<std::byte> bytes);
  void read(uint64_t offset, std::span<std::byte> to) const;
  void write(uint64_t offset, std::span<const std::byte> from);
  void punch(uint64_t offset, uint64_t length);
  void resize(uint64_t size);
  /// How many changes there have been since the last flush: `flush` takes that many.
  size_t unflushed() const { return changes_.size() + flushed_; }
  void flush(size_t until);
  void flush() { flush(unflushed()); }
  /// What a loss of power leaves: what was flushed, and of every other change some sectors, or
  /// none, or all.
  std::vector<std::byte> cut_power(std::mt19937_64& random) const;
  uint64_t punched_bytes() const { return punched_; }

 private:
  struct Change {
    uint64_t offset;
    std::vector<std::byte> bytes;
    bool is_resize = false;
  };
  static void apply(std::vector<std::byte>& to, const Change& change);
  void change(Change change);

  std::vector<std::byte> bytes_;
  std::vector<std::byte> stable_;
  std::vector<Change> changes_;  // not yet stable
  size_t flushed_ = 0;           // changes that are
  uint64_t punched_ = 0;
};

/// The order in which requests to MemoryDisks end, and their errors.
class MemoryQueue {
 public:
  explicit MemoryQueue(uint64_t seed) : random_(seed) {}
  /// Ends one request, any of those begun. False when there is none.
  bool end_one();
  std::mt19937_64& random() { return random_; }
  /// Asked of each request before it is done: 0, or the errno that it ends with.
  std::function<int(const DiskRequest&)> fault;

 private:
  friend class MemoryDisk;
  struct Begun {
    class MemoryDisk* disk;
    DiskRequest* request;
    size_t unflushed;  // changes of the file when it began
  };
  std::mt19937_64 random_;
  std::vector<Begun> begun_;
};

/// A raw disk on a MemoryFile. Both it needs outlive it.
class MemoryDisk : public Disk {
 public:
  MemoryDisk(MemoryQueue& queue, MemoryFile& file) : queue_(queue), file_(file) {}
  ~MemoryDisk() override;

  uint64_t size() const override { return file_.bytes().size(); }
  DiskTopology topology() const override { return {}; }
  void start(DiskRequest& request) override { started_.push_back(&request); }
  void submit() override;
  void on_batch(std::function<void()> told) override { batch_told_ = std::move(told); }
  void resize(uint64_t bytes, ResizeDone done) override;

 private:
  friend class MemoryQueue;
  int run(DiskRequest& request, size_t unflushed);
  void transfer(DiskRequest& request);
  void find_extent(DiskRequest& request) const;

  MemoryQueue& queue_;
  MemoryFile& file_;
  std::vector<DiskRequest*> started_;
  std::function<void()> batch_told_;
};

/// `file` outlives it. Once `*is_dead` it can neither read nor write, as if power were lost.
std::unique_ptr<SyncFile> make_memory_sync(MemoryFile& file, const bool* is_dead = nullptr);

}  // namespace crosvm::test
