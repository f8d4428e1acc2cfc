#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// Opens files that are named inside of other files, for one that may not open any itself. What
/// asks has read what it does not trust: the broker decides by a policy of its own.
class FileBroker {
 public:
  struct Request {
    uint32_t from = 0;      ///< the file that names it: 0, or what the broker called it
    std::string name;       ///< as it stands there
    bool writable = false;  ///< else for reading alone
    friend bool operator==(const Request&, const Request&) = default;
  };
  struct File {
    uint32_t number = 0;  ///< what the broker calls it
    std::string object;   ///< names it in logs and errors
    Fd fd;
  };

  virtual ~FileBroker() = default;
  /// Errors name the file and what would let it through.
  virtual Result<File> open(const Request& request) = 0;
};

}  // namespace crosvm
