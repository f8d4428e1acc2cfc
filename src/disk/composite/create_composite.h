#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "disk/composite/gpt.h"

namespace crosvm {

/// A file that becomes a partition of a composite disk.
struct CompositePartition {
  std::string label;  ///< unique, at most 36 UTF-16 units
  std::string path;   ///< as the user names it, from the working directory
  uint64_t size = 0;  ///< of the disk that the file is an image of, in bytes
  bool writable = false;
  std::optional<gpt::Guid> guid = std::nullopt;  ///< else a random one
};

/// A composite disk to be made (cli.md 3.6).
struct CompositePlan {
  std::string path;  ///< of the file that describes the disk; the others lie beside it
  std::vector<CompositePartition> partitions;
  std::optional<gpt::Guid> disk_guid = std::nullopt;  ///< else a random one
};

/// The files of a composite disk that lies at `path`: of the filler, the header, the footer and,
/// last, the one that describes it.
std::array<std::string, 4> composite_names(const std::string& path);

/// What the files of a composite disk hold.
struct CompositeFiles {
  std::string descriptor;  ///< PATH
  std::string header;      ///< PATH.header: protective MBR and primary GPT
  std::string footer;      ///< PATH.footer: the backup GPT
  std::string filler;      ///< PATH.filler: zeroes, behind read-only partitions
};

/// Works out the files: partitions begin and end at multiples of 4 KiB (devices.md 4.2). Names are
/// stored as given, but for relative ones beside a PATH in another folder, which are made to lead
/// from there. Errors: invalid_argument for no partitions or too many, an empty one, a writable one
/// of a size that is no multiple of 4 KiB, labels that are not unique or too long; else the errno
/// of looking for the working directory or random numbers.
Result<CompositeFiles> plan_composite(const CompositePlan& plan);

/// Makes the files. None gets its name before all are complete and on stable storage, and PATH does
/// last; what has the names is replaced, if it is a file that nobody has in use. Errors: those of
/// `plan_composite` and of `TargetFile`, else the errno of the call that failed, which names the
/// file; what was there before is there then, and nothing else.
Result<void> create_composite(const CompositePlan& plan);

}  // namespace crosvm
