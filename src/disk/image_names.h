#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file_broker.h"
#include "disk/image_file.h"

namespace crosvm {

/// Opens the files that a disk's images name: backing files, data files, parts. An image is not
/// trusted, so a name is good only for a file below the folder of the disk itself, or below one
/// that the user has let in. Symbolic links are followed as far as they stay there.
class ImageNames : public FileBroker {
 public:
  static constexpr unsigned kMostDeep = 64;   ///< images that name each other, from the disk on
  static constexpr size_t kMostFiles = 1024;  ///< of one disk

  struct Options {
    std::string path;                  ///< of the disk; `/proc/self/fd/N` has no folder
    std::vector<std::string> allowed;  ///< files, or folders with all that is below them
    bool read_only = false;            ///< nothing is opened for writing
    bool direct = false;
    bool lock = true;
    bool for_tool = false;  ///< as for the image itself
  };
  explicit ImageNames(Options options);

  /// Errors: nothing is there under a name that the user has let in.
  Result<void> check_allowed() const;

  Result<File> open(const Request& request) override;

 private:
  struct Known {
    std::string folder;  ///< relative names start here; empty: nowhere
    unsigned depth = 0;
    std::optional<FileIdentity> file = std::nullopt;
    bool is_written = false;
  };
  Result<std::string> find(const Request& request, const std::string& shown) const;
  Result<Fd> open_below_roots(const std::string& path, const std::string& shown,
                              const ImageFileOptions& how) const;
  Result<void> check_only_once(const FileIdentity& file, const ImageFileOptions& how,
                               const std::string& shown) const;

  const Options options_;
  std::vector<std::string> roots_;
  std::vector<Known> files_;  // by number
};

}  // namespace crosvm
