#include "disk/qcow2/memory_file.h"

#include <algorithm>
#include <cerrno>

namespace crosvm::test {
namespace {

using Kind = DiskRequest::Kind;
constexpr size_t kSector = 512;

class MemorySync : public SyncFile {
 public:
  MemorySync(MemoryFile& file, const bool* is_dead) : file_(file), is_dead_(is_dead) {}

  uint64_t size() const override { return file_.bytes().size(); }
  Result<void> read_at(uint64_t offset, std::span<std::byte> to) override {
    file_.read(offset, to);
    return alive();
  }
  Result<void> write_at(uint64_t offset, std::span<const std::byte> from) override {
    TRY(alive());
    file_.write(offset, from);
    return {};
  }
  Result<void> flush() override {
    TRY(alive());
    file_.flush();
    return {};
  }
  Result<void> resize(uint64_t bytes) override {
    TRY(alive());
    file_.resize(bytes);
    return {};
  }
  Result<void> allocate(uint64_t, uint64_t) override { return alive(); }
  void punch(uint64_t offset, uint64_t length) override { file_.punch(offset, length); }

 private:
  Result<void> alive() const {
    if (is_dead_ == nullptr || !*is_dead_) return {};
    return fail(Error::from_errno("using", "a file without power", EIO));
  }
  MemoryFile& file_;
  const bool* is_dead_;
};

}  // namespace

std::unique_ptr<SyncFile> make_memory_sync(MemoryFile& file, const bool* is_dead) {
  return std::make_unique<MemorySync>(file, is_dead);
}

void MemoryFile::set_bytes(std::vector<std::byte> bytes) {
  stable_ = bytes_ = std::move(bytes);
  changes_.clear();
}

void MemoryFile::read(uint64_t offset, std::span<std::byte> to) const {
  const uint64_t there =
      offset < bytes_.size() ? std::min<uint64_t>(to.size(), bytes_.size() - offset) : 0;
  std::copy_n(bytes_.data() + (there > 0 ? offset : 0), there, to.begin());
  std::ranges::fill(to.subspan(there), std::byte{0});
}

void MemoryFile::apply(std::vector<std::byte>& to, const Change& change) {
  if (change.is_resize) return to.resize(change.offset);
  const uint64_t end = change.offset + change.bytes.size();
  if (to.size() < end) to.resize(end);
  std::ranges::copy(change.bytes, to.begin() + static_cast<ptrdiff_t>(change.offset));
}

void MemoryFile::change(Change change) {
  apply(bytes_, change);
  changes_.push_back(std::move(change));
}

void MemoryFile::write(uint64_t offset, std::span<const std::byte> from) {
  change({.offset = offset, .bytes = std::vector<std::byte>(from.begin(), from.end())});
}

void MemoryFile::punch(uint64_t offset, uint64_t length) {
  punched_ += length;
  if (offset >= bytes_.size()) return;
  write(offset, std::vector<std::byte>(std::min(length, bytes_.size() - offset)));
}

void MemoryFile::resize(uint64_t size) { change({.offset = size, .bytes = {}, .is_resize = true}); }

void MemoryFile::flush(size_t until) {
  const size_t count = until > flushed_ ? std::min(until - flushed_, changes_.size()) : 0;
  for (size_t i = 0; i < count; ++i) apply(stable_, changes_[i]);
  changes_.erase(changes_.begin(), changes_.begin() + static_cast<ptrdiff_t>(count));
  flushed_ += count;
}

std::vector<std::byte> MemoryFile::cut_power(std::mt19937_64& random) const {
  std::vector<std::byte> left = stable_;
  for (const Change& change : changes_) {
    const uint64_t fate = random() % 4;
    if (fate == 0) continue;
    if (fate == 1 || change.is_resize) {
      apply(left, change);
      continue;
    }
    for (size_t at = 0; at < change.bytes.size();) {
      const size_t end = std::min(change.bytes.size(),
                                  at + kSector - static_cast<size_t>(change.offset + at) % kSector);
      if (random() % 2 == 0) {
        apply(left, {.offset = change.offset + at,
                     .bytes = std::vector<std::byte>(
                         change.bytes.begin() + static_cast<ptrdiff_t>(at),
                         change.bytes.begin() + static_cast<ptrdiff_t>(end))});
      }
      at = end;
    }
  }
  return left;
}

bool MemoryQueue::end_one() {
  if (begun_.empty()) return false;
  const size_t index = random_() % begun_.size();
  const Begun begun = begun_[index];
  begun_[index] = begun_.back();
  begun_.pop_back();
  int error = fault ? fault(*begun.request) : 0;
  if (error == 0) error = begun.disk->run(*begun.request, begun.unflushed);
  begun.request->disk_done(error);
  if (begun.disk->batch_told_) begun.disk->batch_told_();
  return true;
}

MemoryDisk::~MemoryDisk() {
  std::erase_if(queue_.begun_, [this](const auto& begun) { return begun.disk == this; });
}

void MemoryDisk::submit() {
  for (DiskRequest* request : std::exchange(started_, {})) {
    queue_.begun_.push_back({this, request, file_.unflushed()});
  }
}

void MemoryDisk::resize(uint64_t bytes, ResizeDone done) {
  file_.resize(bytes);
  done({});
}

void MemoryDisk::transfer(DiskRequest& request) {
  std::vector<std::byte> bytes(request.length);
  std::span<std::byte> rest(bytes);
  if (request.kind == Kind::kRead) file_.read(request.offset, bytes);
  for (const GuestSlice& buffer : request.buffers) {
    const auto part = rest.first(buffer.size());
    (void)(request.kind == Kind::kRead ? buffer.write_bytes(0, part) : buffer.read_bytes(0, part));
    rest = rest.subspan(buffer.size());
  }
  if (request.kind == Kind::kWrite)
    file_.write(request.offset, bytes);  // at once: sectors are whole
}

int MemoryDisk::run(DiskRequest& request, size_t unflushed) {
  if (request.kind == Kind::kFlush) {
    file_.flush(unflushed);
    return 0;
  }
  if (request.offset > size() || request.length > size() - request.offset) return EINVAL;
  uint64_t buffered = 0;
  for (const GuestSlice& buffer : request.buffers) buffered += buffer.size();
  switch (request.kind) {
    case Kind::kRead:
    case Kind::kWrite:
      if (buffered != request.length) return EDOM;  // the caller's mistake
      transfer(request);
      return 0;
    case Kind::kExtent:
      find_extent(request);
      return 0;
    default:
      file_.punch(request.offset, request.length);
      return 0;
  }
}

/// Of bytes that are 0, or are not.
void MemoryDisk::find_extent(DiskRequest& request) const {
  const auto bytes = std::span(file_.bytes()).subspan(request.offset, request.length);
  const bool is_zero = bytes.empty() || bytes.front() == std::byte{0};
  const auto end = std::ranges::find_if(
      bytes, [is_zero](std::byte byte) { return (byte == std::byte{0}) != is_zero; });
  request.extent = {.length = static_cast<uint64_t>(end - bytes.begin()), .is_zero = is_zero};
}

}  // namespace crosvm::test
