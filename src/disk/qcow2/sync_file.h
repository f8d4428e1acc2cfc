#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// An image file for work that waits: when it is opened, closed, made or checked.
class SyncFile {
 public:
  virtual ~SyncFile() = default;

  virtual uint64_t size() const = 0;  ///< bytes
  /// Bytes past the end of the file read as zeroes. Errors: those of pread.
  virtual Result<void> read_at(uint64_t offset, std::span<std::byte> to) = 0;
  /// All of it is known to read as zeroes. A hint that spares reading.
  virtual bool is_hole(uint64_t /*offset*/, uint64_t /*length*/) { return false; }
  /// The file grows when it must. Errors: those of pwrite.
  virtual Result<void> write_at(uint64_t offset, std::span<const std::byte> from) = 0;
  virtual Result<void> flush() = 0;
  virtual Result<void> resize(uint64_t bytes) = 0;
  /// Reserves the host's space for bytes within the file.
  virtual Result<void> allocate(uint64_t offset, uint64_t length) = 0;
  /// Gives the host's space back where it can. A hint.
  virtual void punch(uint64_t offset, uint64_t length) = 0;
};

/// `file` may be open for direct I/O. `object` names it in errors. Errors: those of fstat.
Result<std::unique_ptr<SyncFile>> make_sync_file(std::shared_ptr<const Fd> file,
                                                 const std::string& object);

}  // namespace crosvm
