#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "disk/disk.h"
#include "disk/image_file.h"
#include "disk/image_format.h"

namespace crosvm {

/// An image of any format, opened and locked for a tool as for a VM, with a loop of its own.
class ToolImage {
 public:
  struct Options {
    bool read_only = true;
    std::optional<ImageFormat> format = std::nullopt;  ///< else found out
    std::vector<std::string> allowed = {};             ///< as allow-backing= of a disk
    std::shared_ptr<const Fd> file = nullptr;          ///< the image, when it is open and locked
    bool lock_named = true;                            ///< the files that it names, too
  };
  /// Errors: those of `open_image_file` and `open_disk`.
  static Result<ToolImage> open(const std::string& path, const Options& options);

  Disk& disk() { return *disk_; }
  EventLoop& loop() { return *loop_; }
  ImageFormat format() const { return format_; }
  /// The image's own file.
  const std::shared_ptr<const Fd>& file() const { return file_; }
  /// Whether `path` is the image's own file or one that it names: a backing file, a part, and what
  /// those name.
  bool consists_of(const std::string& path) const;

 private:
  class KnownNames;
  ToolImage(std::unique_ptr<EventLoop> loop, std::shared_ptr<const Fd> file, ImageFormat format,
            std::unique_ptr<Disk> disk, std::vector<FileIdentity> named);

  std::unique_ptr<EventLoop> loop_;
  std::shared_ptr<const Fd> file_;
  ImageFormat format_;
  std::unique_ptr<Disk> disk_;  // goes first
  std::vector<FileIdentity> named_;
};

}  // namespace crosvm
