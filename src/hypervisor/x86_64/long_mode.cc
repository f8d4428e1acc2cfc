#include "hypervisor/x86_64/long_mode.h"

/// Intel SDM volume 3: 4.5 (4-level paging), 6.14 (64-bit IDT), 10.4 (initialization).
namespace crosvm::x86_64 {
namespace {

constexpr GuestAddress kPml4{0x1000};
constexpr GuestAddress kPdpt{0x2000};
constexpr GuestAddress kPageDirectories{0x3000};  // four of 4 KiB, one per GiB
constexpr GuestAddress kIdt{0x7000};
constexpr uint64_t kGatesInIdt = 256;
constexpr uint64_t kGateBytes = 16;
constexpr GuestAddress kGdt{0x8000};

constexpr uint16_t kCodeSelector = 0x08;
constexpr uint16_t kDataSelector = 0x10;
constexpr uint16_t kTssSelector = 0x18;

constexpr uint64_t kPresentWritable = 0x3;
constexpr uint64_t kLargePage = 0x80;

constexpr uint64_t kCr0Pe = 1 << 0, kCr0Mp = 1 << 1, kCr0Et = 1 << 4, kCr0Ne = 1 << 5;
constexpr uint64_t kCr0Pg = uint64_t{1} << 31;
constexpr uint64_t kCr4Pae = 1 << 5, kCr4Osfxsr = 1 << 9, kCr4Osxmmexcpt = 1 << 10;
constexpr uint64_t kEferLme = 1 << 8, kEferLma = 1 << 10;

Result<void> write_page_tables(const GuestMemory& memory) {
  constexpr uint64_t kGiB = 4, kEntries = 512, kPage = 4096;
  TRY(memory.write<uint64_t>(kPml4, kPdpt.value | kPresentWritable));
  for (uint64_t i = 0; i < kGiB; ++i) {
    TRY(memory.write<uint64_t>(kPdpt + i * 8,
                               (kPageDirectories.value + i * kPage) | kPresentWritable));
  }
  for (uint64_t i = 0; i < kGiB * kEntries; ++i) {
    TRY(memory.write<uint64_t>(kPageDirectories + i * 8,
                               (i << 21) | kLargePage | kPresentWritable));
  }
  return {};
}

/// The same segments as in `system_registers`, for gates and for returns from them.
Result<void> write_gdt(const GuestMemory& memory) {
  TRY(memory.write<uint64_t>(kGdt, 0));
  TRY(memory.write<uint64_t>(kGdt + kCodeSelector, 0x00af9b000000ffff));
  TRY(memory.write<uint64_t>(kGdt + kDataSelector, 0x00cf93000000ffff));
  TRY(memory.write<uint64_t>(kGdt + kTssSelector, 0x00008b0000000067));
  return memory.write<uint64_t>(kGdt + kTssSelector + 8, 0);
}

void set_segments(SystemRegisters& system) {
  const Segment code = {.limit = 0xffffffff,
                        .selector = kCodeSelector,
                        .type = 0xb,
                        .present = true,
                        .s = true,
                        .l = true,
                        .g = true};
  Segment data = code;
  data.selector = kDataSelector;
  data.type = 0x3;
  data.l = false;
  data.db = true;
  system.cs = code;
  system.ds = system.es = system.fs = system.gs = system.ss = data;
  system.tr = {.limit = 0x67, .selector = kTssSelector, .type = 0xb, .present = true};
}

}  // namespace

Result<void> enter_long_mode(const GuestMemory& memory, Vcpu& vcpu, std::span<const std::byte> code,
                             Registers registers, uint64_t extra_cr4) {
  TRY(write_page_tables(memory));
  TRY(write_gdt(memory));
  TRY(memory.write_bytes(kBareCode, code));

  SystemRegisters system = TRY(vcpu.system_registers());
  set_segments(system);
  system.gdt = {.base = kGdt.value, .limit = kTssSelector + 15};
  system.idt = {.base = kIdt.value, .limit = kGatesInIdt * kGateBytes - 1};
  system.cr0 = kCr0Pe | kCr0Mp | kCr0Et | kCr0Ne | kCr0Pg;
  system.cr3 = kPml4.value;
  system.cr4 = kCr4Pae | kCr4Osfxsr | kCr4Osxmmexcpt | extra_cr4;
  system.efer = kEferLme | kEferLma;
  TRY(vcpu.set_system_registers(system));
  TRY(vcpu.reset_fpu());

  registers.rip = kBareCode.value;
  registers.rsp = kBareStackTop.value;
  registers.rflags = 2;
  return vcpu.set_registers(registers);
}

Result<void> set_interrupt_gate(const GuestMemory& memory, uint8_t vector, GuestAddress handler) {
  constexpr uint64_t kPresentInterruptGate = 0x8e00;
  const uint64_t address = handler.value;
  const uint64_t low = (address & 0xffff) | uint64_t{kCodeSelector} << 16 |
                       kPresentInterruptGate << 32 | (address >> 16 & 0xffff) << 48;
  const GuestAddress gate = kIdt + vector * kGateBytes;
  TRY(memory.write<uint64_t>(gate, low));
  return memory.write<uint64_t>(gate + 8, address >> 32);
}

}  // namespace crosvm::x86_64
