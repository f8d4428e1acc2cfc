#pragma once

#include <cstdint>

#include "memory/guest_address.h"

/// Where things stand in an x86_64 guest: physical addresses, sizes in bytes, interrupt numbers
/// (platform.md 1.1 and 1.4).
namespace crosvm::x86_64 {

inline constexpr uint64_t kPageSize = 0x1000;
inline constexpr uint64_t kMiB = 0x100000;
inline constexpr uint64_t kGiB = 0x40000000;

// Below 1 MiB: what the first vCPU needs at entry, then the tables the guest's kernel looks for.
inline constexpr GuestAddress kGdt{0x1500};
inline constexpr GuestAddress kIdt{0x1528};  // the zero quadword that is also GDT slot 5
inline constexpr GuestAddress kZeroPage{0x7000};
inline constexpr GuestAddress kInitialStack{0x8000};  // grows down
inline constexpr GuestAddress kPml4{0x9000};
inline constexpr GuestAddress kPdpt{0xA000};
inline constexpr GuestAddress kPageDirectories{0xB000};  // four, one for each GiB
inline constexpr GuestAddress kCommandLine{0x20000};
inline constexpr uint64_t kCommandLineSize = 0x800;  // with the terminating NUL
inline constexpr GuestAddress kSetupData{0x20800};
inline constexpr GuestAddress kMpTable{0x9E800};
inline constexpr GuestAddress kMpFloatingPointer{0x9FFF0};
inline constexpr GuestAddress kReservedHole{0xA0000};  // to 1 MiB: backed by RAM, but reserved
inline constexpr GuestAddress kRsdp{0xE0000};          // all other ACPI tables follow
inline constexpr GuestAddress kSmbios{0xF0000};
inline constexpr GuestAddress kHighMemory{kMiB};
inline constexpr GuestAddress kKernelLoad{0x200000};

// A PVH entry uses neither the Multiboot block nor the zero page, so its start info goes there.
inline constexpr GuestAddress kPvhStartInfo{0x6000};
inline constexpr GuestAddress kPvhModules{0x6040};
inline constexpr GuestAddress kPvhMemoryMap{0x7000};

// Below 4 GiB.
inline constexpr GuestAddress kLowMmio{0xD0000000};
inline constexpr GuestAddress kLowMmioEnd{0xF8000000};
inline constexpr GuestAddress kEcam{0xF4000000};
inline constexpr uint64_t kEcamSize = 64 * kMiB;  // 64 buses
inline constexpr GuestAddress kIdentityMap{0xFEFFC000};
inline constexpr GuestAddress kTss{0xFEFFD000};
inline constexpr GuestAddress kTssEnd{0xFF000000};
inline constexpr GuestAddress kFourGiB{4 * kGiB};

/// No guest physical address has more bits, whatever the host offers.
inline constexpr uint32_t kMaxPhysicalBits = 46;
inline constexpr uint64_t kDefaultRamBytes = 256 * kMiB;

// Interrupt lines.
inline constexpr uint32_t kSciGsi = 5;
inline constexpr uint32_t kRtcGsi = 8;
inline constexpr uint32_t kFirstPciGsi = 9;  ///< the first of four for INTx

// I/O ports that the allocator may hand out.
inline constexpr uint16_t kFirstDynamicPort = 0xC000;
inline constexpr uint32_t kDynamicPortGranularity = 0x400;

}  // namespace crosvm::x86_64
