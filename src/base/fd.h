#pragma once

#include <unistd.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace crosvm {

/// Sole owner of a file descriptor. Every descriptor is close-on-exec.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int raw) : raw_(raw) {}
  Fd(Fd&& other) noexcept : raw_(std::exchange(other.raw_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {  // closes the old one now: a pipe's reader may wait for it
    Fd old(std::exchange(raw_, std::exchange(other.raw_, -1)));
    return *this;
  }
  ~Fd() {
    if (raw_ >= 0) ::close(raw_);
  }

  explicit operator bool() const { return raw_ >= 0; }
  int get() const { return raw_; }  // borrowed: not stored, not closed
  /// Gives up ownership.
  int release() { return std::exchange(raw_, -1); }
  /// A new descriptor of the same open file, close-on-exec. Errors: the errno of fcntl.
  Result<Fd> duplicate() const;

 private:
  int raw_ = -1;
};

/// Before the number of a descriptor of this process: the path that names what it has open.
inline constexpr std::string_view kOwnDescriptors = "/proc/self/fd/";

/// Opens `path`; `flags` get O_CLOEXEC. `/proc/self/fd/N` means "the descriptor N that we were
/// started with", which is duplicated; it must have been open without close-on-exec, else
/// bad_file_descriptor (cli.md 1.3, PATH). `mode` is for O_CREAT.
Result<Fd> open_path(const std::string& path, int flags, unsigned mode = 0666);

/// Opens /dev/null for each of standard input, output and error that is closed. Else the next file
/// we open would get its number, and messages meant for people would land in it. Not
/// close-on-exec, as standard descriptors are. Call before anything is opened. Errors: the errno of
/// opening /dev/null.
Result<void> ensure_standard_descriptors();

/// Reads until `buffer` is full or the end of file; returns the bytes read. `object` names the
/// file in errors.
Result<size_t> read_full(const Fd& fd, std::span<std::byte> buffer, const std::string& object);
/// The same at a byte offset, leaving the file position alone.
Result<size_t> read_full_at(const Fd& fd, uint64_t offset, std::span<std::byte> buffer,
                            const std::string& object);
/// Writes all of `buffer`, waiting for a non-blocking descriptor where needed.
Result<void> write_full(const Fd& fd, std::span<const std::byte> buffer, const std::string& object);

/// Length in bytes of a regular file or block device. Errors: invalid_argument for anything else (a
/// directory, a pipe), naming what it is.
Result<uint64_t> file_size(const Fd& fd, const std::string& object);

/// A non-blocking close-on-exec eventfd with count 0.
Result<Fd> make_eventfd();
/// Adds 1 to an eventfd. Never blocks: a full counter is already signalled.
void signal_eventfd(const Fd& fd);
/// Takes the count of an eventfd; 0 when it was not signalled.
uint64_t drain_eventfd(const Fd& fd);

}  // namespace crosvm
