#pragma once

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <string>

#include "disk/temporary_file.h"
#include "virtio/rig/rig.h"

/// What the tests of the block device share.
namespace crosvm::block_test {

/// An image, gone when this is.
class TestDisk : public test::TemporaryFile {
 public:
  using TemporaryFile::TemporaryFile;
  /// "path=…" and what follows.
  std::string text(const std::string& more = "") const { return "path=" + path() + more; }
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
