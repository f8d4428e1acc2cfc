#pragma once

#include <array>
#include <cstdint>

/// Register sets of an x86_64 vCPU, as plain values. Intel SDM volumes 1 and 3.
namespace crosvm::x86_64 {

struct Registers {
  uint64_t rax = 0, rbx = 0, rcx = 0, rdx = 0, rsi = 0, rdi = 0, rsp = 0, rbp = 0;
  uint64_t r8 = 0, r9 = 0, r10 = 0, r11 = 0, r12 = 0, r13 = 0, r14 = 0, r15 = 0;
  uint64_t rip = 0, rflags = 2;
};

struct Segment {
  uint64_t base = 0;
  uint32_t limit = 0;
  uint16_t selector = 0;
  uint8_t type = 0;
  bool present = false;
  uint8_t dpl = 0;
  bool db = false;
  bool s = false;
  bool l = false;
  bool g = false;
  bool avl = false;
  bool unusable = false;
};

struct DescriptorTable {
  uint64_t base = 0;
  uint16_t limit = 0;
};

/// Written by read-modify-write, so that what is not here (pending interrupts, APIC base) is kept.
struct SystemRegisters {
  Segment cs, ds, es, fs, gs, ss, tr, ldt;
  DescriptorTable gdt, idt;
  uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0, efer = 0;
};

struct Msr {
  uint32_t index = 0;
  uint64_t value = 0;
};

struct CpuidEntry {
  uint32_t function = 0;
  uint32_t index = 0;
  bool index_significant = false;
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// The 1 KiB register page of a local APIC; registers stand 16 bytes apart.
struct LapicState {
  std::array<uint32_t, 256> words{};
};

}  // namespace crosvm::x86_64
