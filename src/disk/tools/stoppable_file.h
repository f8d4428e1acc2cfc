#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "disk/qcow2/sync_file.h"
#include "disk/tools/tool_progress.h"

namespace crosvm {

/// A file that is read until a signal asks the tool to end. What takes long reads again and again,
/// and leaves an image that is as valid as before wherever it is cut off.
class StoppableFile final : public SyncFile {
 public:
  /// `progress` outlives it.
  StoppableFile(std::unique_ptr<SyncFile> file, ToolProgress& progress)
      : file_(std::move(file)), progress_(progress) {}

  uint64_t size() const override { return file_->size(); }
  Result<void> read_at(uint64_t offset, std::span<std::byte> to) override {
    TRY(progress_.check_signals());
    return file_->read_at(offset, to);
  }
  bool is_hole(uint64_t offset, uint64_t length) override { return file_->is_hole(offset, length); }
  Result<void> write_at(uint64_t offset, std::span<const std::byte> from) override {
    return file_->write_at(offset, from);
  }
  Result<void> flush() override { return file_->flush(); }
  Result<void> resize(uint64_t bytes) override { return file_->resize(bytes); }
  Result<void> allocate(uint64_t offset, uint64_t length) override {
    return file_->allocate(offset, length);
  }
  void punch(uint64_t offset, uint64_t length) override { file_->punch(offset, length); }

 private:
  std::unique_ptr<SyncFile> file_;
  ToolProgress& progress_;
};

}  // namespace crosvm
