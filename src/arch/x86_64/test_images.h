#pragma once

#include <asm/bootparam.h>
#include <elf.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "arch/x86_64/linux_boot.h"
#include "arch/x86_64/memory_map.h"
#include "arch/x86_64/pvh.h"

/// Small kernels, made in the test that boots them.
namespace crosvm::x86_64::test {

using Bytes = std::vector<std::byte>;

inline void put(Bytes& bytes, size_t at, const void* data, size_t size) {
  if (bytes.size() < at + size) bytes.resize(at + size);
  std::memcpy(bytes.data() + at, data, size);
}
template <class T>
void put(Bytes& bytes, size_t at, const T& value) {
  put(bytes, at, &value, sizeof(value));
}

inline Fd memfd_of(std::span<const std::byte> bytes) {
  Fd fd(::memfd_create("test_image", MFD_CLOEXEC));
  EXPECT_TRUE(fd);
  EXPECT_TRUE(write_full(fd, bytes, "test image").has_value());
  return fd;
}

/// RAM as `plan_memory` lays it out.
struct Machine {
  MemoryLayout layout;
  GuestMemory memory;

  explicit Machine(uint64_t mib)
      : layout(*plan_memory({.ram_bytes = mib * kMiB, .host_physical_bits = 46})),
        memory(*GuestMemory::create(layout.ram, {})) {}

  uint8_t byte_at(uint64_t address) const { return *memory.read<uint8_t>(GuestAddress{address}); }
};

struct ElfSegmentSpec {
  uint64_t paddr = 0x1000000;
  Bytes data = Bytes(0x100, std::byte{0xAB});
  uint64_t memory_size = 0x1000;
};

struct ElfSpec {
  uint64_t entry = 0x1000010;
  std::vector<ElfSegmentSpec> segments = {{}};
  Bytes notes = {};  ///< a PT_NOTE segment if not empty
  uint16_t machine = EM_X86_64;
  uint16_t type = ET_EXEC;
};

/// An ELF note as in a PT_NOTE segment, padded to 4 bytes.
inline Bytes note(std::string_view name, uint32_t type, const Bytes& descriptor) {
  Bytes bytes;
  put(bytes, 0,
      Elf64_Nhdr{static_cast<Elf64_Word>(name.size() + 1),
                 static_cast<Elf64_Word>(descriptor.size()), type});
  put(bytes, bytes.size(), name.data(), name.size());
  bytes.push_back(std::byte{0});
  bytes.resize((bytes.size() + 3) / 4 * 4);
  bytes.insert(bytes.end(), descriptor.begin(), descriptor.end());
  bytes.resize((bytes.size() + 3) / 4 * 4);
  return bytes;
}

template <class T>
Bytes bytes_of(const T& value) {
  Bytes bytes;
  put(bytes, 0, value);
  return bytes;
}

/// The note of a Linux with CONFIG_PVH, after one of another owner.
inline Bytes pvh_notes(uint64_t entry) {
  Bytes bytes = note("GNU", 3, Bytes(20));
  const Bytes pvh = note("Xen", 18, bytes_of(entry));
  bytes.insert(bytes.end(), pvh.begin(), pvh.end());
  return bytes;
}

template <class Ehdr, class Phdr>
Bytes elf_as(const ElfSpec& spec, unsigned char elf_class) {
  Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = elf_class;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = spec.type;
  header.e_machine = spec.machine;
  header.e_version = EV_CURRENT;
  header.e_entry = spec.entry;
  header.e_phoff = sizeof(Ehdr);
  header.e_ehsize = sizeof(Ehdr);
  header.e_phentsize = sizeof(Phdr);
  header.e_phnum = spec.segments.size() + (spec.notes.empty() ? 0 : 1);
  Bytes file;
  put(file, 0, header);
  size_t at = sizeof(Ehdr);
  size_t data_at = at + header.e_phnum * sizeof(Phdr);
  auto add = [&](uint32_t type, uint64_t paddr, const Bytes& data, uint64_t memory_size) {
    Phdr p{};
    p.p_type = type;
    p.p_offset = data_at;
    p.p_paddr = paddr;
    p.p_filesz = data.size();
    p.p_memsz = memory_size;
    p.p_align = 4;
    put(file, at, p);
    put(file, data_at, data.data(), data.size());
    at += sizeof(Phdr);
    data_at += data.size();
  };
  for (const ElfSegmentSpec& s : spec.segments) add(PT_LOAD, s.paddr, s.data, s.memory_size);
  if (!spec.notes.empty()) add(PT_NOTE, 0, spec.notes, spec.notes.size());
  return file;
}

inline Bytes elf64(const ElfSpec& spec = {}) {
  return elf_as<Elf64_Ehdr, Elf64_Phdr>(spec, ELFCLASS64);
}
inline Bytes elf32(ElfSpec spec = {}) {
  if (spec.machine == EM_X86_64) spec.machine = EM_386;
  return elf_as<Elf32_Ehdr, Elf32_Phdr>(spec, ELFCLASS32);
}

struct BzImageSpec {
  uint8_t setup_sectors = 4;
  size_t code_bytes = 0x1000;
  size_t trailing_bytes = 0;  ///< as a signature after the image
  uint16_t version = 0x020F;
  uint8_t loadflags = LOADED_HIGH;
  uint16_t xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G;
  uint32_t initrd_max = 0x7FFFFFFF;
  uint32_t cmdline_size = 2047;
  uint64_t pref_address = 0x1000000;
  uint32_t init_size = 0x400000;
};

inline Bytes bzimage(const BzImageSpec& spec = {}) {
  setup_header header{};
  header.setup_sects = spec.setup_sectors;
  header.syssize = static_cast<uint32_t>(spec.code_bytes / 16);
  header.boot_flag = 0xAA55;
  header.jump = 0x6AEB;  // the header ends 0x6A bytes after 0x202
  std::memcpy(&header.header, "HdrS", 4);
  header.version = spec.version;
  header.loadflags = spec.loadflags;
  header.xloadflags = spec.xloadflags;
  header.initrd_addr_max = spec.initrd_max;
  header.cmdline_size = spec.cmdline_size;
  header.pref_address = spec.pref_address;
  header.init_size = spec.init_size;
  const size_t setup = (size_t{spec.setup_sectors == 0 ? 4u : spec.setup_sectors} + 1) * 512;
  Bytes file(setup + spec.code_bytes + spec.trailing_bytes);
  put(file, 0x1F1, header);
  for (size_t i = setup; i < file.size(); ++i) file[i] = static_cast<std::byte>(i % 251);
  return file;
}

/// The error's sentence; the test fails when there is none.
template <class T>
std::string error_of(const Result<T>& result) {
  EXPECT_FALSE(result.has_value());
  return result.has_value() ? "" : result.error().what();
}

inline Result<KernelImage> load(const Machine& machine, const Bytes& bytes,
                                KernelEntry entry = KernelEntry::kAuto) {
  const Fd fd = memfd_of(bytes);
  return load_kernel(machine.memory, {.fd = fd, .name = "k.img"}, entry);
}

}  // namespace crosvm::x86_64::test
