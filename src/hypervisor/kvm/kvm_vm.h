#pragma once

#include <mutex>
#include <vector>

#include "hypervisor/x86_64/hypervisor.h"

namespace crosvm::kvm {

/// A VM of the Linux kernel's KVM.
class KvmVm : public x86_64::Vm {
 public:
  /// `run_size` is KVM_GET_VCPU_MMAP_SIZE, bytes.
  KvmVm(Fd fd, size_t run_size) : fd_(std::move(fd)), run_size_(run_size) {}

  Result<void> map_ram(const GuestMemory& memory) override;
  Result<Memslot> map(GuestAddress base, void* host, uint64_t length, bool read_only) override;
  Result<void> unmap(Memslot slot) override;

  Result<void> register_irqfd(uint32_t gsi, const Fd& trigger, const Fd* resample) override;
  Result<void> unregister_irqfd(uint32_t gsi, const Fd& trigger) override;
  Result<void> set_irq_routes(std::span<const IrqRoute> routes) override;
  Result<void> set_irq_line(uint32_t gsi, bool level) override;
  Result<void> signal_msi(const MsiMessage& message) override;

  Result<void> register_ioevent(const IoEvent& what, const Fd& event) override;
  Result<void> unregister_ioevent(const IoEvent& what, const Fd& event) override;

  Result<Fd> duplicate_descriptor() const override { return fd_.duplicate(); }
  std::string_view backend_name() const override { return "Kvm"; }

  Result<void> set_reserved_pages(GuestAddress tss, GuestAddress identity_map) override;
  Result<void> create_kernel_irqchip() override;
  Result<std::unique_ptr<x86_64::Vcpu>> create_vcpu(uint32_t id) override;

 private:
  Result<void> assign_ioevent(const IoEvent& what, const Fd& event, uint32_t flags,
                              std::string_view doing);

  Fd fd_;
  size_t run_size_;
  std::mutex mutex_;
  std::vector<bool> slot_in_use_;  // by slot number; guarded by mutex_
};

}  // namespace crosvm::kvm
