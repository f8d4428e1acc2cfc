#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/key_value.h"
#include "base/result.h"
#include "disk/image_format.h"

namespace crosvm {

/// How a disk does its I/O: kAuto is io_uring where it can be had, else threads.
enum class AsyncExecutor : uint8_t { kAuto, kUring, kEpoll };

/// `auto`, `uring` or `epoll`. Errors: invalid_argument naming the choices.
Result<AsyncExecutor> parse_async_executor(std::string_view text);

/// One disk, as `--block` describes it (cli.md 1.5, DiskOption).
struct BlockConfig {
  static constexpr uint32_t kSectorSize = 512;
  static constexpr size_t kIdBytes = 20;

  std::string path;
  bool read_only = false;
  bool root = false;                  ///< for the VMM: the kernel's root=
  bool sparse = true;                 ///< discarded space is given back to the host
  bool direct = false;                ///< O_DIRECT
  bool lock = true;                   ///< flock while it is open
  uint32_t block_size = kSectorSize;  ///< bytes, as the guest sees it
  std::optional<std::string> id;      ///< at most kIdBytes bytes
  bool multiple_workers = false;      ///< a thread for each queue
  std::optional<AsyncExecutor> async_executor;
  bool packed_queue = false;
  std::optional<std::string> pci_address;  ///< for the VMM
  bool dontcache = false;                  ///< RWF_DONTCACHE
  /// Of the image; none: found out by its first bytes.
  std::optional<ImageFormat> format;
  /// Files that its images may name although they lie elsewhere, and folders of such.
  std::vector<std::string> allow_backing;  // one path, or a list

  /// Errors: invalid_argument naming the key and what it takes.
  static Result<BlockConfig> parse(const KeyValues& text);
  /// The text that parses to this.
  std::string to_text() const;
};

}  // namespace crosvm
