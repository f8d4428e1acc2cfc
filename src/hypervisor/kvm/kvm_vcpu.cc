#include "hypervisor/kvm/kvm_vcpu.h"

#include <linux/kvm_para.h>
#include <sys/mman.h>

#include <algorithm>

#include "base/format.h"
#include "hypervisor/kvm/ioctl.h"

namespace crosvm::kvm {

Result<RunArea> RunArea::map(const Fd& vcpu, size_t size, const std::string& object) {
  void* const area = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.get(), 0);
  if (area == MAP_FAILED) return fail(Error::from_errno("mapping the run area of", object));
  return RunArea(static_cast<kvm_run*>(area), size);
}

RunArea::~RunArea() {
  if (run_ != nullptr) ::munmap(run_, size_);
}

std::span<std::byte> RunArea::bytes(uint64_t offset, size_t length) const {
  CHECK(offset <= size_ && length <= size_ - offset);
  return {reinterpret_cast<std::byte*>(run_) + offset, length};
}

Result<VcpuExit> KvmVcpu::run(IoHandler& io) {
  if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) return answer_exit(io);
  if (errno == EINTR || errno == EAGAIN) return VcpuExit{.kind = VcpuExit::Kind::kInterrupted};
  return fail(Error::from_errno("running", format_text("vCPU {}", id_)));
}

Result<VcpuExit> KvmVcpu::answer_exit(IoHandler& io) {
  using Kind = VcpuExit::Kind;
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      answer_port(io);
      return VcpuExit{.kind = Kind::kIo};
    case KVM_EXIT_MMIO:
      answer_mmio(io);
      return VcpuExit{.kind = Kind::kIo};
    case KVM_EXIT_HYPERCALL:  // none is offered that would come to us
      run_->hypercall.ret = static_cast<uint64_t>(-int64_t{KVM_ENOSYS});
      return VcpuExit{.kind = Kind::kIo};
    case KVM_EXIT_SET_TPR:  // without an in-kernel LAPIC: the new value is in the registers
      return VcpuExit{.kind = Kind::kIo};
    case KVM_EXIT_INTR:
      return VcpuExit{.kind = Kind::kInterrupted};
    case KVM_EXIT_HLT:
      return VcpuExit{.kind = Kind::kHlt};
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return VcpuExit{.kind = Kind::kIrqWindow};
    case KVM_EXIT_IOAPIC_EOI:
      return VcpuExit{.kind = Kind::kIoapicEoi, .detail = run_->eoi.vector};
    case KVM_EXIT_SHUTDOWN:
      return VcpuExit{.kind = Kind::kShutdown};
    case KVM_EXIT_FAIL_ENTRY:
      return VcpuExit{.kind = Kind::kFailEntry,
                      .detail = run_->fail_entry.hardware_entry_failure_reason};
    case KVM_EXIT_INTERNAL_ERROR:
      return VcpuExit{.kind = Kind::kInternalError, .detail = run_->internal.suberror};
    case KVM_EXIT_SYSTEM_EVENT:
      return system_event();
    case KVM_EXIT_DEBUG:
      return VcpuExit{.kind = Kind::kDebug};
    default:
      return VcpuExit{.kind = Kind::kUnknown, .detail = run_->exit_reason};
  }
}

void KvmVcpu::answer_port(IoHandler& io) {
  // One string instruction may carry many elements; each is an access of its own to the same port.
  const auto& access = run_->io;
  const std::span<std::byte> data =
      run_.bytes(access.data_offset, size_t{access.size} * access.count);
  for (size_t offset = 0; offset < data.size(); offset += access.size) {
    const std::span<std::byte> element = data.subspan(offset, access.size);
    if (access.direction == KVM_EXIT_IO_OUT) {
      io.port_write(access.port, element);
    } else {
      std::ranges::fill(element, std::byte{0});
      io.port_read(access.port, element);
    }
  }
}

void KvmVcpu::answer_mmio(IoHandler& io) {
  auto& access = run_->mmio;
  CHECK(access.len <= sizeof(access.data));
  const auto data = std::as_writable_bytes(std::span(access.data, access.len));
  if (access.is_write) {
    io.mmio_write({access.phys_addr}, data);
  } else {
    std::ranges::fill(data, std::byte{0});
    io.mmio_read({access.phys_addr}, data);
  }
}

Result<VcpuExit> KvmVcpu::system_event() {
  using Kind = VcpuExit::Kind;
  const auto& event = run_->system_event;
  const uint64_t detail = event.ndata > 0 ? event.data[0] : 0;
  switch (event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
      return VcpuExit{.kind = Kind::kSystemShutdown, .detail = detail};
    case KVM_SYSTEM_EVENT_RESET:
      return VcpuExit{.kind = Kind::kSystemReset, .detail = detail};
    case KVM_SYSTEM_EVENT_CRASH:
      return VcpuExit{.kind = Kind::kSystemCrash, .detail = detail};
    default:
      return fail(Error::invalid(format_text("vCPU {}: unknown system event {}", id_, event.type)));
  }
}

void KvmVcpu::set_immediate_exit(bool exit) {
  __atomic_store_n(&run_->immediate_exit, exit ? 1 : 0, __ATOMIC_RELAXED);
}

void KvmVcpu::notify_paused() {
  // EINVAL: the guest has set up no kvmclock. Nothing else can be done about a failure either.
  ::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0UL);
}

std::string KvmVcpu::describe() {
  const auto general = registers();
  const auto system = system_registers();
  if (!general || !system) return "registers unreadable";
  std::string text = format_text(
      "rip={:#x} rsp={:#x} rflags={:#x} rax={:#x} rbx={:#x} rcx={:#x} rdx={:#x} rsi={:#x} "
      "rdi={:#x} "
      "rbp={:#x} cs={:#x} cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
      general->rip, general->rsp, general->rflags, general->rax, general->rbx, general->rcx,
      general->rdx, general->rsi, general->rdi, general->rbp, system->cs.selector, system->cr0,
      system->cr2, system->cr3, system->cr4, system->efer);
  const auto& failure = run_->emulation_failure;
  const bool has_bytes = run_->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
                         failure.suberror == KVM_INTERNAL_ERROR_EMULATION && failure.ndata > 0 &&
                         (failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
  if (has_bytes) {
    text += " instruction=";
    const size_t length = std::min<size_t>(failure.insn_size, sizeof(failure.insn_bytes));
    for (size_t i = 0; i < length; ++i) text += format_text("{:02x}", failure.insn_bytes[i]);
  }
  return text;
}

}  // namespace crosvm::kvm
