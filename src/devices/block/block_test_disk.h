#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <sys/stat.h>

#include <cstdlib>
#include <string>

#include "base/fd.h"
#include "virtio/rig/rig.h"

/// What the tests of the block device share.
namespace crosvm::block_test {

/// An image in the directory for temporary files, gone when this is.
class TestDisk {
 public:
  explicit TestDisk(uint64_t size) : path_(::testing::TempDir() + "block_XXXXXX") {
    fd_ = Fd(::mkostemp(path_.data(), O_CLOEXEC));
    EXPECT_TRUE(fd_);
    resize(size);
  }
  ~TestDisk() { ::unlink(path_.c_str()); }
  TestDisk(const TestDisk&) = delete;
  TestDisk& operator=(const TestDisk&) = delete;

  const std::string& path() const { return path_; }
  /// "path=…" and what follows.
  std::string text(const std::string& more = "") const { return "path=" + path_ + more; }
  void resize(uint64_t size) const {
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(size)), 0);
  }
  std::string read(uint64_t offset, size_t length) const {
    std::string bytes(length, '?');
    auto got = read_full_at(fd_, offset, std::as_writable_bytes(std::span(bytes)), path_);
    bytes.resize(got.value());
    return bytes;
  }
  void write(uint64_t offset, std::string_view text) const {
    EXPECT_EQ(::pwrite(fd_.get(), text.data(), text.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(text.size()));
  }
  uint64_t host_sectors() const {
    struct stat status;
    EXPECT_EQ(::fstat(fd_.get(), &status), 0);
    return static_cast<uint64_t>(status.st_blocks);
  }

 private:
  std::string path_;
  Fd fd_;
};

struct Header {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
inline RigBuffer header(uint32_t type, uint64_t sector = 0) {
  return readable(Header{type, 0, sector});
}

struct Range {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};

inline std::string_view as_text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The answer of a request that must come back.
inline RigUsed ask(RigDriver& driver, const std::vector<RigBuffer>& buffers) {
  RigUsed used = driver.wait_used(driver.send(buffers));
  EXPECT_TRUE(used.arrived);
  return used;
}

/// The status of a write of `text`.
inline int write_at(RigDriver& driver, uint64_t sector, std::string_view text) {
  return ask(driver, {header(VIRTIO_BLK_T_OUT, sector), readable(text), writable(1)}).last_byte();
}

/// What a read returns, status included.
inline RigUsed read_at(RigDriver& driver, uint64_t sector, size_t bytes) {
  return ask(driver, {header(VIRTIO_BLK_T_IN, sector), writable(bytes), writable(1)});
}

}  // namespace crosvm::block_test
