#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string_view>

#include "base/fd.h"

namespace crosvm::log {

/// Standard error as the log writes it: a reader that stalls costs records, never the progress of
/// the VM. What was lost is said when the reader goes on. Not thread-safe.
class LogStream {
 public:
  /// `descriptor` stays its owner's; where the kernel lets us we write through a description of our
  /// own, so that making it non-blocking concerns nobody else.
  explicit LogStream(int descriptor) : descriptor_(descriptor) {}

  /// Opens that description now, for a process that soon cannot open files any more.
  void open() { look_at_descriptor(); }
  /// Writes a record and a newline, or drops it after a short wait.
  void write(std::string_view record);

 private:
  /// Writes all or fails; `patience_ms` is how long it may wait in all.
  bool put(std::string_view text, int patience_ms);

  /// Looks whether `descriptor_` is another file than last time: a process may redirect it.
  void look_at_descriptor();

  int descriptor_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  Fd own_;
  bool is_socket_ = false;
  bool stalled_ = false;
  size_t dropped_ = 0;
};

}  // namespace crosvm::log
