#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.h"

namespace crosvm::test {

/// A file in the directory for temporary ones, gone when this is. For tests of disks.
class TemporaryFile {
 public:
  explicit TemporaryFile(uint64_t size) : path_(::testing::TempDir() + "disk_XXXXXX") {
    fd_ = Fd(::mkostemp(path_.data(), O_CLOEXEC));
    EXPECT_TRUE(fd_);
    resize(size);
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const Fd& fd() const { return fd_; }
  const std::string& path() const { return path_; }
  void resize(uint64_t size) const {
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(size)), 0);
  }
  std::string read(uint64_t offset, size_t length) const {
    std::string bytes(length, '?');
    bytes.resize(
        read_full_at(fd_, offset, std::as_writable_bytes(std::span(bytes)), path_).value());
    return bytes;
  }
  void write(uint64_t offset, std::string_view text) const {
    EXPECT_EQ(::pwrite(fd_.get(), text.data(), text.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(text.size()));
  }
  uint64_t size() const {
    struct stat status;
    EXPECT_EQ(::fstat(fd_.get(), &status), 0);
    return static_cast<uint64_t>(status.st_size);
  }
  /// What it takes on the host, in units of 512 bytes.
  uint64_t host_sectors() const {
    struct stat status;
    EXPECT_EQ(::fstat(fd_.get(), &status), 0);
    return static_cast<uint64_t>(status.st_blocks);
  }

 private:
  std::string path_;
  Fd fd_;
};

}  // namespace crosvm::test
