#pragma once

#include <cstddef>
#include <span>

#include "disk/qcow2/qcow2_header.h"

namespace crosvm {

/// Unpacks one cluster: fills `to` from the start of `from`, whose rest is not looked at. False
/// when it is broken or does not yield all bytes. Memory and time follow the size of `to`.
bool decompress_cluster(Qcow2Compression type, std::span<const std::byte> from,
                        std::span<std::byte> to);

/// Packs one cluster. The bytes used of `to`, or 0 when they do not fit.
size_t compress_cluster(Qcow2Compression type, std::span<const std::byte> from,
                        std::span<std::byte> to);

}  // namespace crosvm
