#include "disk/flat_model.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/result.h"

namespace crosvm::test {

using Kind = DiskRequest::Kind;

void FlatModel::start(std::vector<std::byte> bytes) {
  bytes_ = std::move(bytes);
  known_.assign(bytes_.size(), true);
}

void FlatModel::resize(uint64_t size) {
  bytes_.resize(size);
  known_.resize(size, true);
}

std::optional<uint64_t> FlatModel::ended(const DiskRequest& request,
                                         std::span<const std::byte> data) {
  const auto at = bytes_.begin() + static_cast<ptrdiff_t>(request.offset);
  switch (request.kind) {
    case Kind::kRead:
      return compare(request.offset, data);
    case Kind::kExtent:
      return compare_extent(request);
    case Kind::kWrite:
      std::ranges::copy(data, at);
      set_known(request, true);
      break;
    case Kind::kWriteZeroes:
      std::fill_n(at, request.length, std::byte{0});
      set_known(request, true);
      break;
    case Kind::kDiscard:
      set_known(request, false);
      break;
    case Kind::kFlush:
      break;
  }
  return std::nullopt;
}

std::optional<uint64_t> FlatModel::settle(std::vector<std::byte> shown) {
  CHECK(shown.size() == bytes_.size());
  auto wrong = compare(0, shown);
  start(std::move(shown));
  return wrong;
}

std::optional<uint64_t> FlatModel::compare(uint64_t offset,
                                           std::span<const std::byte> shown) const {
  if (std::memcmp(shown.data(), bytes_.data() + offset, shown.size()) == 0) return std::nullopt;
  for (uint64_t i = 0; i < shown.size(); ++i) {
    if (known_[offset + i] && shown[i] != bytes_[offset + i]) return offset + i;
  }
  return std::nullopt;
}

std::optional<uint64_t> FlatModel::compare_extent(const DiskRequest& request) const {
  const DiskRequest::Extent& extent = request.extent;
  if (extent.length == 0 || extent.length > request.length) return request.offset;
  for (uint64_t at = request.offset; extent.is_zero && at < request.offset + extent.length; ++at) {
    if (known_[at] && bytes_[at] != std::byte{0}) return at;
  }
  return std::nullopt;
}

void FlatModel::set_known(const DiskRequest& request, bool known) {
  std::fill_n(known_.begin() + static_cast<ptrdiff_t>(request.offset), request.length, known);
}

}  // namespace crosvm::test
