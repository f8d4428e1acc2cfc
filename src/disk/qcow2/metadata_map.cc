#include "disk/qcow2/metadata_map.h"

#include <sys/auxv.h>

#include <cstring>
#include <system_error>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

constexpr size_t kFirstSlots = 64;

/// Random bytes that the kernel gives to every process.
uint64_t random_key() {
  uint64_t key = 0;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): so it is given
  const auto* bytes = reinterpret_cast<const std::byte*>(::getauxval(AT_RANDOM));
  if (bytes != nullptr) std::memcpy(&key, bytes, sizeof key);
  return key;
}

}  // namespace

MetadataMap::MetadataMap() : slots_(kFirstSlots), mask_(kFirstSlots - 1), key_(random_key()) {}

Error MetadataMap::no_room(const std::string& object) {
  return Error(
      std::errc::not_supported,
      format_text("{}: more than {} of its clusters are metadata, which takes too much memory; "
                  "delete snapshots of it (qemu-img snapshot -d), or copy it into larger clusters "
                  "(qemu-img convert -O qcow2 -o cluster_size=64k)",
                  object, kMostClaimed));
}

bool MetadataMap::claim(uint64_t first, uint64_t count, ClusterUse use) {
  bool free = true;
  for (uint64_t i = first; i < first + count; ++i) {
    const bool taken = this->use(i) != ClusterUse::kData;
    if (taken) free = false;
    set(i, taken ? ClusterUse::kContested : use);
  }
  return free;
}

void MetadataMap::set(uint64_t cluster, ClusterUse use) {
  CHECK(cluster < kMostClusters);
  if (use == ClusterUse::kData) return release(cluster);
  size_t at = find(cluster);
  if (slots_[at] == 0 && ++claimed_ > slots_.size() / 3 * 2) {
    grow();
    at = find(cluster);
  }
  slots_[at] = cluster << kUseBits | static_cast<uint64_t>(use);
}

void MetadataMap::grow() {
  const std::vector<uint64_t> old = std::exchange(slots_, std::vector<uint64_t>(slots_.size() * 2));
  mask_ = slots_.size() - 1;
  for (const uint64_t slot : old) {
    if (slot != 0) slots_[find(slot >> kUseBits)] = slot;
  }
}

/// Those behind it that would not be found any more move up.
void MetadataMap::release(uint64_t cluster) {
  size_t hole = find(cluster);
  if (slots_[hole] == 0) return;
  --claimed_;
  for (size_t at = (hole + 1) & mask_; slots_[at] != 0; at = (at + 1) & mask_) {
    const size_t from_home = (at - home_of(slots_[at] >> kUseBits)) & mask_;
    if (from_home < ((at - hole) & mask_)) continue;
    slots_[hole] = slots_[at];
    hole = at;
  }
  slots_[hole] = 0;
}

}  // namespace crosvm
