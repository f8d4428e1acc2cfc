#pragma once

#include <sys/uio.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "memory/guest_address.h"

namespace crosvm {

/// What may be copied between us and the guest: trivially copyable and free of padding, so that our
/// stack never leaks to the guest.
template <class T>
concept GuestPod = std::is_trivially_copyable_v<T> &&
                   (std::has_unique_object_representations_v<T> || std::is_floating_point_v<T>);

/// A field that we and the guest both use while it runs, such as a ring's index: small enough for
/// one load or store.
template <class T>
concept SharedField =
    std::same_as<T, uint16_t> || std::same_as<T, uint32_t> || std::same_as<T, uint64_t>;

/// A bounds-checked window on guest RAM, in bytes. The guest may rewrite it at any moment, so no
/// pointer into it leaves this class. Valid while its GuestMemory lives.
class GuestSlice {
 public:
  /// A window on memory of our own, for code that serves both; valid while that lives.
  static GuestSlice over(std::span<std::byte> ours) { return {ours.data(), ours.size()}; }

  size_t size() const { return size_; }

  /// The part of `length` bytes at `offset`. Errors: result_out_of_range past the end.
  Result<GuestSlice> sub(size_t offset, size_t length) const;
  /// Copies out; errors: result_out_of_range past the end.
  Result<void> read_bytes(size_t offset, std::span<std::byte> to) const;
  /// Copies in; errors: result_out_of_range past the end.
  Result<void> write_bytes(size_t offset, std::span<const std::byte> from) const;

  template <GuestPod T>
  Result<T> read(size_t offset = 0) const {
    T value;
    TRY(read_bytes(offset, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  template <GuestPod T>
  Result<void> write(size_t offset, const T& value) const {
    return write_bytes(offset, std::as_bytes(std::span(&value, 1)));
  }

  // One load or store of a field at an offset that we have computed: outside the window or
  // misaligned is our mistake. Acquire: later reads see what the guest wrote before it. Release:
  // the guest that sees it sees what we wrote before.
  template <SharedField T>
  T load_relaxed(size_t offset) const {
    return __atomic_load_n(field<T>(offset), __ATOMIC_RELAXED);
  }
  template <SharedField T>
  T load_acquire(size_t offset) const {
    return __atomic_load_n(field<T>(offset), __ATOMIC_ACQUIRE);
  }
  template <SharedField T>
  void store_relaxed(size_t offset, T value) const {
    __atomic_store_n(field<T>(offset), value, __ATOMIC_RELAXED);
  }
  template <SharedField T>
  void store_release(size_t offset, T value) const {
    __atomic_store_n(field<T>(offset), value, __ATOMIC_RELEASE);
  }

  iovec as_iovec() const { return {data_, size_}; }  // only as an argument of a system call

 private:
  friend class GuestMemory;
  GuestSlice(std::byte* data, size_t size) : data_(data), size_(size) {}
  template <SharedField T>
  T* field(size_t offset) const {
    CHECK(offset <= size_ && size_ - offset >= sizeof(T));
    CHECK(reinterpret_cast<uintptr_t>(data_ + offset) % sizeof(T) == 0);
    return reinterpret_cast<T*>(data_ + offset);
  }

  std::byte* data_;
  size_t size_;
};

/// A run of guest RAM to create, in bytes; both multiples of the host page size.
struct RamRange {
  GuestAddress base;
  uint64_t size = 0;
};

/// A run of guest RAM that exists: `offset` is its place in the memfd, `host` where it is mapped
/// (for the hypervisor's memory slots only).
struct RamRegion {
  GuestAddress base;
  uint64_t size = 0;
  uint64_t offset = 0;
  void* host = nullptr;

  GuestAddress end() const { return base + size; }
};

/// A part of a file that another process made guest RAM of, in bytes; all three numbers are
/// multiples of the host page size. `file` is borrowed for the call.
struct FileRange {
  GuestAddress base;
  uint64_t size = 0;
  uint64_t offset = 0;  ///< in the file
  const Fd& file;
};

/// All RAM of one guest: one sealed memfd, mapped once; or what another process shows us of it.
class GuestMemory {
 public:
  struct Options {
    bool hugepages = false;  ///< `--hugepages`: hugetlb or shmem huge pages; logs which it got
    bool lock = false;       ///< `--lock-guest-memory`
  };

  /// Creates RAM for ascending, disjoint `ranges`. Errors: invalid_argument for overlapping,
  /// misaligned or empty ranges, not_enough_memory naming the size (memory/host_memory.h judges it,
  /// and may log a warning), else the errno of the call.
  static Result<GuestMemory> create(std::span<const RamRange> ranges, const Options& options);

  /// Maps RAM that another process describes, in any order; none is RAM of 0 bytes. Nothing of it
  /// is trusted: only regular files are mapped, and no byte past their end. Errors:
  /// invalid_argument for what is empty, misaligned, overlapping, past the end of its file or of
  /// what can be addressed; else the errno of fstat or mmap; all name the range.
  ///
  /// Where no seal keeps a file from shrinking, its owner can still take pages away: the access
  /// that misses one ends this process by SIGBUS. So this is for processes that serve one guest.
  static Result<GuestMemory> map(std::span<const FileRange> ranges);

  GuestMemory(GuestMemory&&) noexcept;
  GuestMemory& operator=(GuestMemory&&) noexcept;
  ~GuestMemory();

  /// Ascending.
  std::span<const RamRegion> regions() const { return regions_; }
  uint64_t total_bytes() const;
  /// First address after the last region.
  GuestAddress end() const;
  /// The memfd behind all regions, for vhost and workers; borrowed. None of what `map` made.
  const Fd& memfd() const { return memfd_; }

  /// The window [base, base+length), which must lie in one region. Errors: bad_address.
  Result<GuestSlice> slice(GuestAddress base, uint64_t length) const;
  /// Where a slice of this memory begins.
  GuestAddress address_of(const GuestSlice& slice) const;
  Result<void> read_bytes(GuestAddress from, std::span<std::byte> to) const;
  Result<void> write_bytes(GuestAddress to, std::span<const std::byte> from) const;
  template <GuestPod T>
  Result<T> read(GuestAddress from) const {
    return TRY(slice(from, sizeof(T))).template read<T>();
  }
  template <GuestPod T>
  Result<void> write(GuestAddress to, const T& value) const {
    return TRY(slice(to, sizeof(T))).write(0, value);
  }
  /// Reads `length` bytes of `file` at `file_offset` straight into guest RAM at `to`. Errors:
  /// bad_address outside RAM, invalid_argument when the file ends early; `object` names the file.
  Result<void> load_file(GuestAddress to, const Fd& file, uint64_t file_offset, uint64_t length,
                         const std::string& object) const;

 private:
  /// What munmap takes; may be more than a region, as huge pages are mapped whole.
  struct Mapping {
    void* at = nullptr;
    uint64_t bytes = 0;
  };

  GuestMemory() = default;
  Result<void> map_range(const FileRange& range);
  /// One memfd made by `memfd_create` with `memfd_flags`, mapped with `map_flags`.
  static Result<GuestMemory> create_backed(std::span<const RamRange> ranges, unsigned memfd_flags,
                                           int map_flags);
  void advise(int advice, const char* name) const;

  Fd memfd_;
  std::vector<RamRegion> regions_;
  std::vector<Mapping> mappings_;
};

}  // namespace crosvm
