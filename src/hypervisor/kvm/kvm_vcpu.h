#pragma once

#include <linux/kvm.h>

#include <utility>

#include "hypervisor/x86_64/hypervisor.h"

namespace crosvm::kvm {

/// Sole owner of the memory that a vCPU shares with the kernel: struct kvm_run and what follows it.
class RunArea {
 public:
  /// Maps `size` bytes of the vCPU descriptor `vcpu`; `object` names it in errors.
  static Result<RunArea> map(const Fd& vcpu, size_t size, const std::string& object);
  RunArea(RunArea&& other) noexcept
      : run_(std::exchange(other.run_, nullptr)), size_(other.size_) {}
  RunArea& operator=(RunArea&&) = delete;
  ~RunArea();

  kvm_run* operator->() const { return run_; }
  /// `length` bytes at `offset`, as the kernel names them.
  std::span<std::byte> bytes(uint64_t offset, size_t length) const;

 private:
  RunArea(kvm_run* run, size_t size) : run_(run), size_(size) {}
  kvm_run* run_;
  size_t size_;
};

class KvmVcpu : public x86_64::Vcpu {
 public:
  KvmVcpu(uint32_t id, Fd fd, RunArea run) : id_(id), fd_(std::move(fd)), run_(std::move(run)) {}

  uint32_t id() const override { return id_; }
  Result<VcpuExit> run(IoHandler& io) override;
  void set_immediate_exit(bool exit) override;
  void notify_paused() override;
  std::string describe() override;

  Result<x86_64::Registers> registers() override;
  Result<void> set_registers(const x86_64::Registers& registers) override;
  Result<x86_64::SystemRegisters> system_registers() override;
  Result<void> set_system_registers(const x86_64::SystemRegisters& registers) override;
  Result<void> reset_fpu() override;
  Result<std::vector<x86_64::Msr>> msrs(std::span<const uint32_t> indexes) override;
  Result<void> set_msrs(std::span<const x86_64::Msr> msrs) override;
  Result<void> set_cpuid(std::span<const x86_64::CpuidEntry> entries) override;
  Result<x86_64::LapicState> lapic() override;
  Result<void> set_lapic(const x86_64::LapicState& state) override;

 private:
  /// An ioctl of this vCPU; `doing` is like "reading the registers of".
  template <class Arg>
  Result<int> call(unsigned long request, Arg argument, std::string_view doing);

  Result<VcpuExit> answer_exit(IoHandler& io);
  void answer_port(IoHandler& io);
  void answer_mmio(IoHandler& io);
  Result<VcpuExit> system_event();

  uint32_t id_;
  Fd fd_;
  RunArea run_;
};

}  // namespace crosvm::kvm
