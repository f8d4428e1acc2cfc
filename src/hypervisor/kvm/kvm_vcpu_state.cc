#include <algorithm>
#include <cstring>

#include "base/format.h"
#include "hypervisor/kvm/ioctl.h"
#include "hypervisor/kvm/kvm_vcpu.h"

/// Register sets of a vCPU, between our types and the kernel's.
namespace crosvm::kvm {
namespace {

using x86_64::CpuidEntry;
using x86_64::DescriptorTable;
using x86_64::LapicState;
using x86_64::Msr;
using x86_64::Registers;
using x86_64::Segment;
using x86_64::SystemRegisters;

constexpr size_t kMsrsAtOnce = 128;  // the kernel takes fewer than 256

Segment from_kvm(const kvm_segment& segment) {
  return {.base = segment.base,
          .limit = segment.limit,
          .selector = segment.selector,
          .type = segment.type,
          .present = segment.present != 0,
          .dpl = segment.dpl,
          .db = segment.db != 0,
          .s = segment.s != 0,
          .l = segment.l != 0,
          .g = segment.g != 0,
          .avl = segment.avl != 0,
          .unusable = segment.unusable != 0};
}

kvm_segment to_kvm(const Segment& segment) {
  kvm_segment result = {};
  result.base = segment.base;
  result.limit = segment.limit;
  result.selector = segment.selector;
  result.type = segment.type;
  result.present = segment.present;
  result.dpl = segment.dpl;
  result.db = segment.db;
  result.s = segment.s;
  result.l = segment.l;
  result.g = segment.g;
  result.avl = segment.avl;
  result.unusable = segment.unusable;
  return result;
}

kvm_dtable to_kvm(const DescriptorTable& table) {
  kvm_dtable result = {};
  result.base = table.base;
  result.limit = table.limit;
  return result;
}

}  // namespace

template <class Arg>
Result<int> KvmVcpu::call(unsigned long request, Arg argument, std::string_view doing) {
  return kvm::call(fd_, request, argument, doing, format_text("vCPU {}", id_));
}

Result<Registers> KvmVcpu::registers() {
  kvm_regs regs = {};
  TRY(call(KVM_GET_REGS, &regs, "reading the registers of"));
  return Registers{.rax = regs.rax,
                   .rbx = regs.rbx,
                   .rcx = regs.rcx,
                   .rdx = regs.rdx,
                   .rsi = regs.rsi,
                   .rdi = regs.rdi,
                   .rsp = regs.rsp,
                   .rbp = regs.rbp,
                   .r8 = regs.r8,
                   .r9 = regs.r9,
                   .r10 = regs.r10,
                   .r11 = regs.r11,
                   .r12 = regs.r12,
                   .r13 = regs.r13,
                   .r14 = regs.r14,
                   .r15 = regs.r15,
                   .rip = regs.rip,
                   .rflags = regs.rflags};
}

Result<void> KvmVcpu::set_registers(const Registers& registers) {
  kvm_regs regs = {.rax = registers.rax,
                   .rbx = registers.rbx,
                   .rcx = registers.rcx,
                   .rdx = registers.rdx,
                   .rsi = registers.rsi,
                   .rdi = registers.rdi,
                   .rsp = registers.rsp,
                   .rbp = registers.rbp,
                   .r8 = registers.r8,
                   .r9 = registers.r9,
                   .r10 = registers.r10,
                   .r11 = registers.r11,
                   .r12 = registers.r12,
                   .r13 = registers.r13,
                   .r14 = registers.r14,
                   .r15 = registers.r15,
                   .rip = registers.rip,
                   .rflags = registers.rflags};
  TRY(call(KVM_SET_REGS, &regs, "setting the registers of"));
  return {};
}

Result<SystemRegisters> KvmVcpu::system_registers() {
  kvm_sregs sregs = {};
  TRY(call(KVM_GET_SREGS, &sregs, "reading the system registers of"));
  return SystemRegisters{.cs = from_kvm(sregs.cs),
                         .ds = from_kvm(sregs.ds),
                         .es = from_kvm(sregs.es),
                         .fs = from_kvm(sregs.fs),
                         .gs = from_kvm(sregs.gs),
                         .ss = from_kvm(sregs.ss),
                         .tr = from_kvm(sregs.tr),
                         .ldt = from_kvm(sregs.ldt),
                         .gdt = {.base = sregs.gdt.base, .limit = sregs.gdt.limit},
                         .idt = {.base = sregs.idt.base, .limit = sregs.idt.limit},
                         .cr0 = sregs.cr0,
                         .cr2 = sregs.cr2,
                         .cr3 = sregs.cr3,
                         .cr4 = sregs.cr4,
                         .cr8 = sregs.cr8,
                         .efer = sregs.efer};
}

Result<void> KvmVcpu::set_system_registers(const SystemRegisters& registers) {
  kvm_sregs sregs = {};
  TRY(call(KVM_GET_SREGS, &sregs, "reading the system registers of"));
  sregs.cs = to_kvm(registers.cs);
  sregs.ds = to_kvm(registers.ds);
  sregs.es = to_kvm(registers.es);
  sregs.fs = to_kvm(registers.fs);
  sregs.gs = to_kvm(registers.gs);
  sregs.ss = to_kvm(registers.ss);
  sregs.tr = to_kvm(registers.tr);
  sregs.ldt = to_kvm(registers.ldt);
  sregs.gdt = to_kvm(registers.gdt);
  sregs.idt = to_kvm(registers.idt);
  sregs.cr0 = registers.cr0;
  sregs.cr2 = registers.cr2;
  sregs.cr3 = registers.cr3;
  sregs.cr4 = registers.cr4;
  sregs.cr8 = registers.cr8;
  sregs.efer = registers.efer;
  TRY(call(KVM_SET_SREGS, &sregs, "setting the system registers of"));
  return {};
}

Result<void> KvmVcpu::reset_fpu() {
  kvm_fpu fpu = {};
  fpu.fcw = 0x37f;
  fpu.mxcsr = 0x1f80;
  TRY(call(KVM_SET_FPU, &fpu, "resetting the FPU of"));
  return {};
}

Result<std::vector<Msr>> KvmVcpu::msrs(std::span<const uint32_t> indexes) {
  std::vector<Msr> values;
  while (!indexes.empty()) {
    const auto part = indexes.first(std::min(indexes.size(), kMsrsAtOnce));
    MsrList list(part.size());
    for (size_t i = 0; i < part.size(); ++i) list.entries()[i].index = part[i];
    const auto done = static_cast<size_t>(TRY(call(kGetMsrs, list.header(), "reading MSRs of")));
    if (done < part.size()) {
      return fail(
          Error(std::errc::not_supported,
                format_text("vCPU {}: the kernel refuses to read MSR {:#x}", id_, part[done])));
    }
    for (const kvm_msr_entry& entry : list.entries()) values.push_back({entry.index, entry.data});
    indexes = indexes.subspan(part.size());
  }
  return values;
}

Result<void> KvmVcpu::set_msrs(std::span<const Msr> msrs) {
  while (!msrs.empty()) {
    const auto part = msrs.first(std::min(msrs.size(), kMsrsAtOnce));
    MsrList list(part.size());
    for (size_t i = 0; i < part.size(); ++i) {
      list.entries()[i] = {.index = part[i].index, .reserved = 0, .data = part[i].value};
    }
    const auto done = static_cast<size_t>(TRY(call(kSetMsrs, list.header(), "setting MSRs of")));
    if (done < part.size()) {
      return fail(Error(std::errc::not_supported,
                        format_text("vCPU {}: the kernel refuses to set MSR {:#x} to {:#x}", id_,
                                    part[done].index, part[done].value)));
    }
    msrs = msrs.subspan(part.size());
  }
  return {};
}

Result<void> KvmVcpu::set_cpuid(std::span<const CpuidEntry> entries) {
  CpuidList list(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    const CpuidEntry& entry = entries[i];
    kvm_cpuid_entry2& out = list.entries()[i];
    out.function = entry.function;
    out.index = entry.index;
    out.flags = entry.index_significant ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    out.eax = entry.eax;
    out.ebx = entry.ebx;
    out.ecx = entry.ecx;
    out.edx = entry.edx;
  }
  TRY(call(kSetCpuid2, list.header(), "setting the CPUID of"));
  return {};
}

Result<LapicState> KvmVcpu::lapic() {
  kvm_lapic_state raw = {};
  TRY(call(KVM_GET_LAPIC, &raw, "reading the local APIC of"));
  LapicState state;
  static_assert(sizeof(raw.regs) == sizeof(state.words));
  std::memcpy(state.words.data(), raw.regs, sizeof(raw.regs));
  return state;
}

Result<void> KvmVcpu::set_lapic(const LapicState& state) {
  kvm_lapic_state raw = {};
  std::memcpy(raw.regs, state.words.data(), sizeof(raw.regs));
  TRY(call(KVM_SET_LAPIC, &raw, "setting the local APIC of"));
  return {};
}

}  // namespace crosvm::kvm
