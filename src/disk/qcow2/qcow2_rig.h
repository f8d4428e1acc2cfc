#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "disk/qcow2/memory_file.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_create.h"
#include "disk/qcow2/qcow2_disk.h"

namespace crosvm::test {

/// A request with memory of its own.
struct TestRequest final : DiskRequest {
  TestRequest(Kind kind, uint64_t offset, uint64_t length) {
    this->kind = kind;
    this->offset = offset;
    this->length = length;
    if (kind == Kind::kRead || kind == Kind::kWrite) {
      bytes.resize(length);
      // In two parts, so that buffers and runs do not agree.
      const size_t first = length / 3;
      buffers = {GuestSlice::over(std::span(bytes).first(first)),
                 GuestSlice::over(std::span(bytes).subspan(first))};
    }
  }
  void disk_done(int error) override {
    EXPECT_EQ(result, -1) << "told twice";
    result = error;
  }
  std::vector<std::byte> bytes;
  int result = -1;
};

/// An image in memory, opened as a disk.
struct Qcow2Rig {
  explicit Qcow2Rig(uint64_t seed) : queue(seed) {}

  void make(const Qcow2CreateOptions& options) {
    auto sync = make_memory_sync(file);
    auto made = create_qcow2(*sync, options, "test.qcow2");
    ASSERT_TRUE(made) << made.error().what();
    file.flush();
  }
  Result<void> try_open(bool read_only = false) {
    Qcow2Parts parts{.file = std::make_unique<MemoryDisk>(queue, file),
                     .sync = make_memory_sync(file, &is_dead),
                     .backing = {},
                     .data_file = {},
                     .read_only = read_only,
                     .object = "test.qcow2",
                     .limits = limits};
    if (backing) parts.backing = std::make_unique<MemoryDisk>(queue, *backing);
    if (data_file) parts.data_file = std::make_unique<MemoryDisk>(queue, *data_file);
    disk = TRY(Qcow2Disk::create(std::move(parts)));
    return {};
  }
  void open(bool read_only = false) {
    auto opened = try_open(read_only);
    ASSERT_TRUE(opened) << opened.error().what();
  }
  void close() { disk.reset(); }
  int run(TestRequest& request) {
    disk->start(request);
    disk->submit();
    while (request.result < 0 && queue.end_one()) {
    }
    EXPECT_GE(request.result, 0) << "never told";
    return request.result;
  }
  int run(DiskRequest::Kind kind, uint64_t offset, uint64_t length, bool may_unmap = false) {
    TestRequest request(kind, offset, length);
    request.may_unmap = may_unmap;
    return run(request);
  }
  int flush() { return run(DiskRequest::Kind::kFlush, 0, 0); }
  int write(uint64_t offset, const std::string& text) {
    TestRequest request(DiskRequest::Kind::kWrite, offset, text.size());
    std::ranges::copy(std::as_bytes(std::span(text)), request.bytes.begin());
    return run(request);
  }
  std::string read(uint64_t offset, size_t length) {
    TestRequest request(DiskRequest::Kind::kRead, offset, length);
    EXPECT_EQ(run(request), 0);
    return {reinterpret_cast<const char*>(request.bytes.data()), length};
  }
  int resize(uint64_t bytes) {
    int result = -1;
    disk->resize(bytes, [&](const Result<void>& ended) { result = errno_of(ended); });
    while (result < 0 && queue.end_one()) {
    }
    EXPECT_GE(result, 0) << "never told";
    return result;
  }
  Qcow2Report check(Qcow2Repair repair = Qcow2Repair::kNothing) {
    auto sync = make_memory_sync(file);
    auto report = check_qcow2(*sync, "test.qcow2", repair);
    EXPECT_TRUE(report) << report.error().what();
    return report ? *report : Qcow2Report{.errors = 1, .messages = {}};
  }
  void expect_clean() {
    const Qcow2Report report = check();
    EXPECT_EQ(report.errors, 0u) << report.messages.front();
    EXPECT_EQ(report.leaks, 0u) << report.messages.front();
  }

  MemoryQueue queue;
  MemoryFile file;
  std::unique_ptr<MemoryFile> backing;
  std::unique_ptr<MemoryFile> data_file;
  bool is_dead = false;
  Qcow2Metadata::Limits limits = {};
  std::unique_ptr<Qcow2Disk> disk;
};

}  // namespace crosvm::test
