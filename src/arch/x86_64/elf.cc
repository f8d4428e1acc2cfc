#include "arch/x86_64/elf.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "arch/x86_64/pvh.h"
#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

constexpr size_t kMaxSegments = 1024;        // a kernel has about five
constexpr uint64_t kMaxNoteBytes = 0x10000;  // a kernel has about 500
constexpr uint32_t kElfCommandLineMax = 2047;

constexpr std::string_view kCopyAgain = "build or copy the kernel again";

/// A program header of either class.
struct Segment {
  uint32_t type = 0;
  uint64_t offset = 0;
  uint64_t paddr = 0;
  uint64_t file_size = 0;
  uint64_t memory_size = 0;
  uint64_t alignment = 0;

  bool contains(uint64_t address) const {
    return type == PT_LOAD && address >= paddr && address - paddr < memory_size;
  }
};

struct Elf {
  bool is_64 = false;
  uint64_t entry = 0;
  std::vector<Segment> segments;

  bool loads(uint64_t address) const {
    return std::any_of(segments.begin(), segments.end(),
                       [address](const Segment& s) { return s.contains(address); });
  }
};

std::string machine_name(uint16_t machine) {
  switch (machine) {
    case EM_AARCH64:
      return "aarch64";
    case EM_ARM:
      return "32-bit ARM";
    case EM_RISCV:
      return "riscv";
    case EM_PPC64:
      return "ppc64";
    case EM_S390:
      return "s390x";
    case EM_386:
      return "i386 in a 64-bit file";
    case EM_X86_64:
      return "x86_64 in a 32-bit file";
    default:
      return format_text("ELF machine {}", machine);
  }
}

/// Copies a T from `offset` of the file.
template <class T>
Result<T> read_at(const BootFile& file, uint64_t offset) {
  T value{};
  const auto bytes = std::as_writable_bytes(std::span(&value, 1));
  if (TRY(read_full_at(file.fd, offset, bytes, "kernel " + file.name)) != sizeof(T)) {
    return fail(kernel_error(file, "is cut short inside its ELF header", kCopyAgain));
  }
  return value;
}

template <class Ehdr, class Phdr>
Result<Elf> parse_as(const BootFile& file, uint64_t size, uint16_t machine) {
  const auto header = TRY(read_at<Ehdr>(file, 0));
  if (header.e_machine != machine) {
    return fail(kernel_error(file, "is built for " + machine_name(header.e_machine),
                             "give a kernel built for x86_64"));
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    return fail(kernel_error(file, "is not linked (an object file or a core dump)",
                             "give the linked vmlinux"));
  }
  const size_t count = header.e_phnum;
  if (count == 0 || count > kMaxSegments || header.e_phentsize != sizeof(Phdr)) {
    return fail(kernel_error(file,
                             format_text("has {} program headers of {} bytes, which is no kernel",
                                         count, header.e_phentsize),
                             kCopyAgain));
  }
  if (header.e_phoff > size || count * sizeof(Phdr) > size - header.e_phoff) {
    return fail(kernel_error(
        file, format_text("is cut short: {} bytes do not hold its program headers", size),
        kCopyAgain));
  }
  std::vector<Phdr> table(count);
  const auto bytes = std::as_writable_bytes(std::span(table));
  if (TRY(read_full_at(file.fd, header.e_phoff, bytes, "kernel " + file.name)) != bytes.size()) {
    return fail(kernel_error(file, "became shorter while it was read", kCopyAgain));
  }
  Elf elf{.is_64 = machine == EM_X86_64, .entry = header.e_entry, .segments = {}};
  for (const Phdr& p : table) {
    elf.segments.push_back({p.p_type, p.p_offset, p.p_paddr, p.p_filesz, p.p_memsz, p.p_align});
  }
  return elf;
}

Result<Elf> parse(const BootFile& file, uint64_t size) {
  const auto ident = TRY(read_at<std::array<unsigned char, EI_NIDENT>>(file, 0));
  if (ident[EI_DATA] != ELFDATA2LSB) {
    return fail(kernel_error(file, "is not little-endian", "give a kernel built for x86_64"));
  }
  if (ident[EI_VERSION] != EV_CURRENT) {
    return fail(kernel_error(file, format_text("has the unknown ELF version {}", ident[EI_VERSION]),
                             kCopyAgain));
  }
  if (ident[EI_CLASS] == ELFCLASS64) return parse_as<Elf64_Ehdr, Elf64_Phdr>(file, size, EM_X86_64);
  if (ident[EI_CLASS] == ELFCLASS32) return parse_as<Elf32_Ehdr, Elf32_Phdr>(file, size, EM_386);
  return fail(
      kernel_error(file, format_text("has the unknown ELF class {}", ident[EI_CLASS]), kCopyAgain));
}

Result<void> check_segment(const GuestMemory& memory, const BootFile& file, uint64_t size,
                           const Segment& segment) {
  if (segment.paddr < kKernelLoad.value) {
    return fail(kernel_error(
        file, format_text("has a segment at {:#x}, below {:#x}", segment.paddr, kKernelLoad.value),
        "link the kernel for 2 MiB or higher"));
  }
  if (segment.file_size > segment.memory_size) {
    return fail(kernel_error(file,
                             format_text("has a segment at {:#x} with more bytes in the file than "
                                         "in memory",
                                         segment.paddr),
                             kCopyAgain));
  }
  if (segment.offset > size || segment.file_size > size - segment.offset) {
    return fail(kernel_error(
        file,
        format_text("is cut short: {} bytes do not hold its segment of {} bytes at offset {}", size,
                    segment.file_size, segment.offset),
        kCopyAgain));
  }
  return check_in_ram(memory, file, segment.paddr, segment.memory_size);
}

/// Checks all segments before the first is loaded. Yields the run of memory they take.
Result<AddressRange> load_segments(const GuestMemory& memory, const BootFile& file, uint64_t size,
                                   const Elf& elf) {
  uint64_t first = UINT64_MAX;
  uint64_t end = 0;
  for (const Segment& segment : elf.segments) {
    const bool empty = segment.memory_size == 0 && segment.file_size == 0;
    if (segment.type != PT_LOAD || empty) continue;
    TRY(check_segment(memory, file, size, segment));
    first = std::min(first, segment.paddr);
    end = std::max(end, segment.paddr + segment.memory_size);
  }
  if (end == 0) {
    return fail(kernel_error(file, "has nothing to load", "give the linked vmlinux"));
  }
  for (const Segment& segment : elf.segments) {
    if (segment.type != PT_LOAD || segment.file_size == 0) continue;
    TRY(memory.load_file(GuestAddress{segment.paddr}, file.fd, segment.offset, segment.file_size,
                         "kernel " + file.name));
  }
  return AddressRange{GuestAddress{first}, end - first};
}

/// The entry that the PVH note names, if there is such a note.
Result<std::optional<uint64_t>> pvh_entry(const BootFile& file, uint64_t size, const Elf& elf) {
  for (const Segment& segment : elf.segments) {
    if (segment.type != PT_NOTE) continue;
    if (segment.offset > size || segment.file_size > size - segment.offset ||
        segment.file_size > kMaxNoteBytes) {
      return fail(kernel_error(
          file, format_text("has notes of {} bytes that cannot be read", segment.file_size),
          kCopyAgain));
    }
    std::vector<std::byte> notes(segment.file_size);
    if (TRY(read_full_at(file.fd, segment.offset, notes, "kernel " + file.name)) != notes.size()) {
      return fail(kernel_error(file, "became shorter while it was read", kCopyAgain));
    }
    auto found = find_pvh_note(notes, segment.alignment);
    if (!found) return fail(kernel_error(file, found.error().what(), kCopyAgain));
    if (!found->has_value()) continue;
    if (!elf.loads(**found)) {
      return fail(kernel_error(
          file, format_text("has its PVH entry {:#x} outside all loaded segments", **found),
          "use --kernel-entry linux, or build the kernel again"));
    }
    return *found;
  }
  return std::optional<uint64_t>{};
}

struct Entry {
  EntryMode mode;
  uint64_t address;
};

Result<Entry> choose_entry(const BootFile& file, uint64_t size, const Elf& elf,
                           KernelEntry wanted) {
  if (wanted != KernelEntry::kPvh && elf.loads(elf.entry)) {
    return Entry{elf.is_64 ? EntryMode::kLong64 : EntryMode::kFlat32, elf.entry};
  }
  if (wanted != KernelEntry::kLinux) {
    if (auto pvh = TRY(pvh_entry(file, size, elf))) return Entry{EntryMode::kPvh, *pvh};
  }
  if (wanted == KernelEntry::kPvh) {
    return fail(kernel_error(file, "has no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY)",
                             "use --kernel-entry linux, or build the kernel with CONFIG_PVH=y"));
  }
  return fail(
      kernel_error(file,
                   format_text("has its entry {:#x} outside all loaded segments{}", elf.entry,
                               wanted == KernelEntry::kAuto ? ", and no PVH entry note" : ""),
                   wanted == KernelEntry::kAuto ? "link the kernel with a physical entry address"
                                                : "leave out --kernel-entry linux"));
}

}  // namespace

bool is_elf(std::span<const std::byte> start) {
  return start.size() >= SELFMAG && std::memcmp(start.data(), ELFMAG, SELFMAG) == 0;
}

Result<KernelImage> load_elf(const GuestMemory& memory, const BootFile& file, uint64_t size,
                             KernelEntry entry) {
  const Elf elf = TRY(parse(file, size));
  const Entry chosen = TRY(choose_entry(file, size, elf, entry));
  KernelImage image{.mode = chosen.mode,
                    .entry = chosen.address,
                    .memory = TRY(load_segments(memory, file, size, elf)),
                    .header = {}};
  image.header.cmdline_size = kElfCommandLineMax;
  return image;
}

}  // namespace crosvm::x86_64
