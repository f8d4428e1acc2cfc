#include "memory/guest_memory.h"

#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "base/format.h"
#include "base/log.h"
#include "base/memfd.h"
#include "memory/host_memory.h"
#include "memory/huge_pages.h"

namespace crosvm {
namespace {

// Of a file: the largest huge page there is.
constexpr uint64_t kMostBlockSize = uint64_t{1} << 30;

uint64_t page_size() { return static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)); }

/// Checks what `GuestMemory::create` asks of its ranges and returns the sum of their sizes, bytes.
Result<uint64_t> check_ranges(std::span<const RamRange> ranges) {
  if (ranges.empty()) return fail(Error::invalid("guest memory: no range of RAM"));
  uint64_t total = 0;
  GuestAddress free_from{0};
  for (const RamRange& range : ranges) {
    const auto problem = [&](const char* what) {
      return fail(Error::invalid(format_text("guest memory range {:#x} of {:#x} bytes: {}",
                                             range.base.value, range.size, what)));
    };
    if (range.size == 0) return problem("empty");
    if ((range.base.value | range.size) % page_size() != 0) return problem("not whole pages");
    if (range.base < free_from) return problem("overlaps or is out of order");
    const auto end = range.base.checked_add(range.size);
    if (!end || end->value > INT64_MAX) return problem("ends beyond what can be addressed");
    free_from = *end;
    total += range.size;  // disjoint, so below INT64_MAX too
  }
  return total;
}

Error outside_ram(GuestAddress base, uint64_t length) {
  return Error(
      std::errc::bad_address,
      format_text("guest address {:#x} of {:#x} bytes is not in one region of guest memory",
                  base.value, length));
}

/// Maps `size` bytes so that the host address equals `base` modulo the huge page size; otherwise
/// neither the host nor the hypervisor can use a huge page there.
void* map_congruent(GuestAddress base, uint64_t size, int flags, int fd, uint64_t offset) {
  const int prot = PROT_READ | PROT_WRITE;
  const off_t at = static_cast<off_t>(offset);
  if (size < kHugePageSize) return ::mmap(nullptr, size, prot, flags, fd, at);
  const uint64_t reserved = size + kHugePageSize;
  void* const area =
      ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) return area;
  std::byte* const start = static_cast<std::byte*>(area);
  const uint64_t skip = (base.value - reinterpret_cast<uintptr_t>(start)) % kHugePageSize;
  void* const mapped = ::mmap(start + skip, size, prot, flags | MAP_FIXED, fd, at);
  if (mapped == MAP_FAILED) {
    const int error_number = errno;
    ::munmap(area, reserved);
    errno = error_number;
    return MAP_FAILED;
  }
  if (skip > 0) ::munmap(start, skip);
  ::munmap(start + skip + size, kHugePageSize - skip);
  return mapped;
}

}  // namespace

Result<GuestMemory> GuestMemory::create(std::span<const RamRange> ranges, const Options& options) {
  const uint64_t total = TRY(check_ranges(ranges));
  auto make = [&]() -> Result<GuestMemory> {
    if (options.hugepages && can_use_hugetlb(ranges)) {
      // Without MAP_NORESERVE: the pages are ours from now on, and no touch by the guest can fail.
      auto memory = create_backed(ranges, MFD_HUGETLB | MFD_HUGE_2MB, MAP_SHARED);
      if (memory) {
        log::info("guest memory: {} MiB in hugetlb pages", total >> 20);
        return memory;
      }
      log::debug("guest memory in hugetlb pages: {}", memory.error().what());
    }
    TRY(check_host_memory(total));
    GuestMemory memory = TRY(create_backed(ranges, 0, MAP_SHARED | MAP_NORESERVE));
    if (options.hugepages) {
      const bool huge = report_shmem_huge_pages(total);
      if (huge) memory.advise(MADV_HUGEPAGE, "MADV_HUGEPAGE");
    }
    return memory;
  };
  GuestMemory memory = TRY(make());
  memory.advise(MADV_DONTDUMP, "MADV_DONTDUMP");
  memory.advise(MADV_MERGEABLE, "MADV_MERGEABLE");
  if (options.lock) {
    for (const RamRegion& region : memory.regions_) {
      if (::mlock(region.host, region.size) == 0) continue;
      const Error error = Error::from_errno("locking", "guest memory");
      log::warn("{}: {} MiB stay unlocked; raise the limit on locked memory (ulimit -l)",
                error.what(), region.size >> 20);
    }
  }
  return memory;
}

Result<GuestMemory> GuestMemory::create_backed(std::span<const RamRange> ranges,
                                               unsigned memfd_flags, int map_flags) {
  static constexpr const char* kObject = "crosvm_guest";
  uint64_t total = 0;
  for (const RamRange& range : ranges) total += range.size;

  GuestMemory memory;
  memory.memfd_ = make_memfd(kObject, memfd_flags);
  if (!memory.memfd_) return fail(Error::from_errno("creating the memfd", kObject));
  if (::ftruncate(memory.memfd_.get(), static_cast<off_t>(total)) != 0) {
    return fail(
        Error::from_errno(format_text("sizing guest memory to {} MiB", total >> 20), kObject));
  }
  // Whoever gets the descriptor can neither pull pages from under us nor grow it.
  if (!seal_size(memory.memfd_)) {
    return fail(Error::from_errno("sealing the memfd", kObject));
  }
  uint64_t offset = 0;
  for (const RamRange& range : ranges) {
    void* const host =
        map_congruent(range.base, range.size, map_flags, memory.memfd_.get(), offset);
    if (host == MAP_FAILED) {
      const Error cause = Error::from_errno(
          format_text("mapping {} MiB of guest memory", range.size >> 20), kObject);
      if (cause.code() != std::errc::not_enough_memory) return fail(cause);
      return fail(Error(cause.code(),
                        format_text("{}; give the VM less (--mem), or raise RLIMIT_AS (ulimit -v)",
                                    cause.what())));
    }
    memory.mappings_.push_back({.at = host, .bytes = range.size});
    memory.regions_.push_back(
        {.base = range.base, .size = range.size, .offset = offset, .host = host});
    offset += range.size;
  }
  return memory;
}

void GuestMemory::advise(int advice, const char* name) const {
  for (const RamRegion& region : regions_) {
    // The hypervisor cannot use a huge page in a region smaller than one.
    if (advice == MADV_HUGEPAGE && region.size < kHugePageSize) continue;
    if (::madvise(region.host, region.size, advice) == 0) continue;
    log::debug("{}", Error::from_errno(name, "guest memory").what());
  }
}

Result<GuestMemory> GuestMemory::map(std::span<const FileRange> ranges) {
  GuestMemory memory;
  memory.mappings_.reserve(ranges.size());
  for (const FileRange& range : ranges) {
    TRY(with_context(memory.map_range(range), format_text("guest memory range {:#x} of {:#x} bytes",
                                                          range.base.value, range.size)));
  }
  std::ranges::sort(memory.regions_, {}, &RamRegion::base);
  GuestAddress free_from{0};
  for (const RamRegion& region : memory.regions_) {
    if (region.base < free_from) {
      return fail(Error::invalid(format_text("guest memory range {:#x} of {:#x} bytes: overlaps",
                                             region.base.value, region.size)));
    }
    free_from = region.end();
  }
  memory.advise(MADV_DONTDUMP, "MADV_DONTDUMP");
  return memory;
}

Result<void> GuestMemory::map_range(const FileRange& range) {
  if (range.size == 0) return fail(Error::invalid("empty"));
  if ((range.base.value | range.size | range.offset) % page_size() != 0) {
    return fail(Error::invalid(format_text("not whole pages, at offset {:#x}", range.offset)));
  }
  const auto end = range.base.checked_add(range.size);
  if (!end || end->value > INT64_MAX) {
    return fail(Error::invalid("ends beyond what can be addressed"));
  }
  struct stat file{};
  if (::fstat(range.file.get(), &file) != 0) return fail(Error::from_errno("fstat of", "its file"));
  if (!S_ISREG(file.st_mode)) return fail(Error::invalid("its descriptor is no regular file"));
  const auto bytes = static_cast<uint64_t>(file.st_size);
  if (range.offset > bytes || range.size > bytes - range.offset) {
    return fail(Error::invalid(format_text(
        "at offset {:#x} it goes past the end of its file at {:#x}", range.offset, bytes)));
  }
  // Files of huge pages are mapped in whole blocks, whatever part of one the guest sees.
  const auto block_size = static_cast<uint64_t>(file.st_blksize);
  const bool usable = std::has_single_bit(block_size) && block_size <= kMostBlockSize;
  const uint64_t block = usable ? std::max(block_size, page_size()) : page_size();
  const uint64_t start = range.offset & ~(block - 1);
  const uint64_t length = (range.offset + range.size - start + block - 1) & ~(block - 1);
  void* const host =
      block <= kHugePageSize
          ? map_congruent({start}, length, MAP_SHARED | MAP_NORESERVE, range.file.get(), start)
          : ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                   range.file.get(), static_cast<off_t>(start));
  if (host == MAP_FAILED) return fail(Error::from_errno("mapping", "its file"));
  mappings_.push_back({.at = host, .bytes = length});
  regions_.push_back({.base = range.base,
                      .size = range.size,
                      .offset = range.offset,
                      .host = static_cast<std::byte*>(host) + (range.offset - start)});
  return {};
}

GuestMemory::GuestMemory(GuestMemory&& other) noexcept
    : memfd_(std::move(other.memfd_)),
      regions_(std::exchange(other.regions_, {})),
      mappings_(std::exchange(other.mappings_, {})) {}

GuestMemory& GuestMemory::operator=(GuestMemory&& other) noexcept {
  GuestMemory old(std::move(*this));
  memfd_ = std::move(other.memfd_);
  regions_ = std::exchange(other.regions_, {});
  mappings_ = std::exchange(other.mappings_, {});
  return *this;
}

GuestMemory::~GuestMemory() {
  for (const Mapping& mapping : mappings_) ::munmap(mapping.at, mapping.bytes);
}

uint64_t GuestMemory::total_bytes() const {
  uint64_t total = 0;
  for (const RamRegion& region : regions_) total += region.size;
  return total;
}

GuestAddress GuestMemory::end() const {
  return regions_.empty() ? GuestAddress{} : regions_.back().end();
}

Result<GuestSlice> GuestMemory::slice(GuestAddress base, uint64_t length) const {
  const auto after = std::ranges::upper_bound(regions_, base, {}, &RamRegion::base);
  if (after == regions_.begin()) return fail(outside_ram(base, length));
  const RamRegion& region = *std::prev(after);
  const uint64_t offset = base.value - region.base.value;
  if (offset >= region.size || length > region.size - offset) {
    return fail(outside_ram(base, length));
  }
  return GuestSlice(static_cast<std::byte*>(region.host) + offset, length);
}

GuestAddress GuestMemory::address_of(const GuestSlice& slice) const {
  for (const RamRegion& region : regions_) {
    const auto* const host = static_cast<const std::byte*>(region.host);
    if (slice.data_ < host || slice.data_ >= host + region.size) continue;
    return region.base + static_cast<uint64_t>(slice.data_ - host);
  }
  CHECK(false);
}

Result<void> GuestMemory::read_bytes(GuestAddress from, std::span<std::byte> to) const {
  return TRY(slice(from, to.size())).read_bytes(0, to);
}

Result<void> GuestMemory::write_bytes(GuestAddress to, std::span<const std::byte> from) const {
  return TRY(slice(to, from.size())).write_bytes(0, from);
}

Result<void> GuestMemory::load_file(GuestAddress to, const Fd& file, uint64_t file_offset,
                                    uint64_t length, const std::string& object) const {
  iovec rest = TRY(slice(to, length)).as_iovec();
  while (rest.iov_len > 0) {
    // The kernel answers EFAULT where a load of ours would be killed by SIGBUS.
    const ssize_t got = ::preadv(file.get(), &rest, 1, static_cast<off_t>(file_offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno("reading", object));
    if (got == 0) {
      return fail(Error::invalid(format_text("{}: the file ends at byte {}, {} more are needed",
                                             object, file_offset, rest.iov_len)));
    }
    rest.iov_base = static_cast<std::byte*>(rest.iov_base) + got;
    rest.iov_len -= static_cast<size_t>(got);
    file_offset += static_cast<uint64_t>(got);
  }
  return {};
}

}  // namespace crosvm
