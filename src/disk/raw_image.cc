#include "disk/raw_image.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <span>

#include "base/format.h"

namespace crosvm {
namespace {

constexpr uint32_t kSector = 512;
constexpr uint32_t kPage = 4096;

uint32_t power_of_two_or(uint32_t value, uint32_t otherwise) {
  return std::has_single_bit(value) ? value : otherwise;
}

DiskTopology block_device_topology(const Fd& device) {
  unsigned physical = 0;
  unsigned minimum = 0;
  unsigned optimal = 0;
  int alignment = 0;
  // Each is left alone by a device that does not know.
  (void)::ioctl(device.get(), BLKPBSZGET, &physical);
  (void)::ioctl(device.get(), BLKIOMIN, &minimum);
  (void)::ioctl(device.get(), BLKIOOPT, &optimal);
  (void)::ioctl(device.get(), BLKALIGNOFF, &alignment);
  return {.physical_block = power_of_two_or(physical, 0),
          .alignment_offset = alignment > 0 ? static_cast<uint32_t>(alignment) : 0,
          .minimum_io = minimum,
          .optimal_io = optimal};
}

/// Whether the file can be read by sectors past the page cache.
bool reads_single_sectors(const Fd& image) {
  alignas(kPage) std::array<std::byte, kSector> sector;
  return ::pread(image.get(), sector.data(), sector.size(), 0) >= 0;
}

Result<DirectAlignment> direct_alignment(const Fd& image, const RawImageFacts& facts,
                                         const std::string& object) {
  struct ::statx status = {};
  if (::syscall(__NR_statx, image.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0) {  // Linux 6.1, some file systems
    if (status.stx_dio_offset_align == 0) {
      return fail(
          Error(std::errc::not_supported,
                format_text("{}: its file system has no direct I/O; leave out direct", object)));
    }
    return DirectAlignment{.memory = power_of_two_or(status.stx_dio_mem_align, kPage),
                           .offset = power_of_two_or(status.stx_dio_offset_align, kPage)};
  }
  uint32_t block = facts.is_block_device         ? facts.logical_block
                   : reads_single_sectors(image) ? kSector
                                                 : kPage;
  return DirectAlignment{.memory = block, .offset = block};
}

}  // namespace

Result<RawImageFacts> inspect_raw_image(const Fd& image, const std::string& object) {
  RawImageFacts facts;
  facts.size = TRY(file_size(image, object));
  struct stat status = {};
  if (::fstat(image.get(), &status) != 0) return fail(Error::from_errno("looking at", object));
  facts.is_block_device = S_ISBLK(status.st_mode);
  if (facts.is_block_device) {
    int logical = 0;
    if (::ioctl(image.get(), BLKSSZGET, &logical) != 0) {
      return fail(Error::from_errno("asking for the block size of", object));
    }
    facts.logical_block = power_of_two_or(static_cast<uint32_t>(logical), kSector);
    facts.topology = block_device_topology(image);
  } else {
    uint32_t block = power_of_two_or(static_cast<uint32_t>(status.st_blksize), 0);
    facts.topology.physical_block = std::min(block, kPage);  // network file systems name megabytes
    facts.topology.minimum_io = block;
  }
  int flags = ::fcntl(image.get(), F_GETFL);
  if (flags < 0) return fail(Error::from_errno("looking at", object));
  if ((flags & O_DIRECT) != 0) facts.alignment = TRY(direct_alignment(image, facts, object));
  return facts;
}

}  // namespace crosvm
