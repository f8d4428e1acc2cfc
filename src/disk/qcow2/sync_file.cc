#include "disk/qcow2/sync_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace crosvm {
namespace {

constexpr uint64_t kBlock = 4096;  // what direct I/O wants at most of offsets, lengths and memory
constexpr size_t kBounce = 256 << 10;

class FdFile : public SyncFile {
 public:
  FdFile(std::shared_ptr<const Fd> file, const std::string& object)
      : file_(std::move(file)), object_(object) {}

  uint64_t size() const override { return file_size(*file_, object_).value_or(0); }
  Result<void> read_at(uint64_t offset, std::span<std::byte> to) override;
  bool is_hole(uint64_t offset, uint64_t length) override {
    const off_t data = ::lseek(file_->get(), static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0) return errno == ENXIO;  // up to the end
    return static_cast<uint64_t>(data) >= offset + length;
  }
  Result<void> write_at(uint64_t offset, std::span<const std::byte> from) override;
  Result<void> flush() override {
    if (::fdatasync(file_->get()) != 0) return fail(Error::from_errno("writing back", object_));
    return {};
  }
  Result<void> resize(uint64_t bytes) override {
    if (::ftruncate(file_->get(), static_cast<off_t>(bytes)) != 0) {
      return fail(Error::from_errno("resizing", object_));
    }
    return {};
  }
  Result<void> allocate(uint64_t offset, uint64_t length) override {
    if (::fallocate(file_->get(), 0, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0) {
      return fail(Error::from_errno("reserving space in", object_));
    }
    return {};
  }
  void punch(uint64_t offset, uint64_t length) override {
    (void)::fallocate(file_->get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      static_cast<off_t>(offset), static_cast<off_t>(length));
  }

 private:
  bool is_direct() const { return (::fcntl(file_->get(), F_GETFL) & O_DIRECT) != 0; }
  bool take_bounce();
  Result<void> write_all(uint64_t offset, std::span<const std::byte> from);

  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  const std::shared_ptr<const Fd> file_;
  const std::string object_;
  std::unique_ptr<std::byte, Free> bounce_;
};

bool FdFile::take_bounce() {
  if (!bounce_) bounce_.reset(static_cast<std::byte*>(std::aligned_alloc(kBlock, kBounce)));
  return bounce_ != nullptr;
}

Result<void> FdFile::read_at(uint64_t offset, std::span<std::byte> to) {
  if (!is_direct()) {
    const size_t length = TRY(read_full_at(*file_, offset, to, object_));
    std::ranges::fill(to.subspan(length), std::byte{0});
    return {};
  }
  if (!take_bounce()) return fail(Error(std::errc::not_enough_memory, object_));
  while (!to.empty()) {
    const uint64_t start = offset & ~(kBlock - 1);
    const std::span<std::byte> bounce(bounce_.get(), kBounce);
    const size_t length = TRY(read_full_at(*file_, start, bounce, object_));
    std::ranges::fill(bounce.subspan(length), std::byte{0});
    const size_t piece = std::min<uint64_t>(to.size(), kBounce - (offset - start));
    std::memcpy(to.data(), bounce.data() + (offset - start), piece);
    to = to.subspan(piece);
    offset += piece;
  }
  return {};
}

Result<void> FdFile::write_all(uint64_t offset, std::span<const std::byte> from) {
  while (!from.empty()) {
    const ssize_t done =
        ::pwrite(file_->get(), from.data(), from.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return fail(Error::from_errno("writing", object_));
    if (done == 0) return fail(Error::from_errno("writing", object_, EIO));
    from = from.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
  return {};
}

Result<void> FdFile::write_at(uint64_t offset, std::span<const std::byte> from) {
  if (!is_direct()) return write_all(offset, from);
  if (!take_bounce()) return fail(Error(std::errc::not_enough_memory, object_));
  while (!from.empty()) {
    const uint64_t start = offset & ~(kBlock - 1);
    const size_t piece = std::min<uint64_t>(from.size(), kBounce - (offset - start));
    const uint64_t end = (offset + piece + kBlock - 1) & ~(kBlock - 1);
    const std::span<std::byte> bounce(bounce_.get(), end - start);
    if (start != offset || end != offset + piece) {
      const size_t length = TRY(read_full_at(*file_, start, bounce, object_));
      std::ranges::fill(bounce.subspan(length), std::byte{0});
    }
    std::memcpy(bounce.data() + (offset - start), from.data(), piece);
    TRY(write_all(start, bounce));
    from = from.subspan(piece);
    offset += piece;
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<SyncFile>> make_sync_file(std::shared_ptr<const Fd> file,
                                                 const std::string& object) {
  TRY(file_size(*file, object));
  return std::make_unique<FdFile>(std::move(file), object);
}

}  // namespace crosvm
