#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "disk/composite/create_composite.h"

namespace crosvm {

/// Takes `LABEL:FILE[:[writable][:GUID]]` apart (cli.md 3.6); fields after the fourth do not count.
/// The size is not looked for. Errors: invalid_argument.
Result<CompositePartition> parse_partition(std::string_view text);

/// Makes a composite disk of partitions, each of which is opened for its size. Errors: those of
/// parsing, of opening an image, of `create_composite`.
Result<void> make_composite(const std::string& path, std::span<const std::string_view> partitions);

}  // namespace crosvm
