#include "hypervisor/kvm/kvm_vm.h"

#include <unistd.h>

#include <algorithm>

#include "base/format.h"
#include "hypervisor/kvm/ioctl.h"
#include "hypervisor/kvm/kvm_vcpu.h"

namespace crosvm::kvm {
namespace {

std::string name_of(const IoEvent& what) {
  return format_text("{} {:#x} of {} bytes",
                     what.space == IoEvent::Space::kPort ? "port" : "address", what.address,
                     what.length);
}

kvm_irq_routing_entry to_entry(const IrqRoute& route) {
  kvm_irq_routing_entry entry = {};
  entry.gsi = route.gsi;
  if (const auto* pin = std::get_if<IrqChipPin>(&route.target)) {
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip = {.irqchip = pin->chip, .pin = pin->pin};
  } else {
    const auto& message = std::get<MsiMessage>(route.target);
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<uint32_t>(message.address);
    entry.u.msi.address_hi = static_cast<uint32_t>(message.address >> 32);
    entry.u.msi.data = message.data;
  }
  return entry;
}

}  // namespace

Result<void> KvmVm::map_ram(const GuestMemory& memory) {
  for (const RamRegion& region : memory.regions()) {
    TRY(map(region.base, region.host, region.size, /*read_only=*/false));
  }
  return {};
}

Result<Memslot> KvmVm::map(GuestAddress base, void* host, uint64_t length, bool read_only) {
  const std::lock_guard lock(mutex_);
  const auto free = std::find(slot_in_use_.begin(), slot_in_use_.end(), false);
  const auto slot = static_cast<Memslot>(free - slot_in_use_.begin());
  kvm_userspace_memory_region region = {
      .slot = slot,
      .flags = read_only ? uint32_t{KVM_MEM_READONLY} : 0,
      .guest_phys_addr = base.value,
      .memory_size = length,
      .userspace_addr = reinterpret_cast<uintptr_t>(host),
  };
  const auto object = [&] { return format_text("{:#x} of {:#x} bytes", base.value, length); };
  // The kernel takes a length of 0 as "delete the slot".
  if (length == 0) return fail(Error::invalid("mapping guest memory at " + object() + ": empty"));
  TRY(call(fd_, KVM_SET_USER_MEMORY_REGION, &region, "mapping guest memory at", object()));
  if (free == slot_in_use_.end()) {
    slot_in_use_.push_back(true);
  } else {
    *free = true;
  }
  return slot;
}

Result<void> KvmVm::unmap(Memslot slot) {
  const std::lock_guard lock(mutex_);
  if (slot >= slot_in_use_.size() || !slot_in_use_[slot]) {
    return fail(Error::invalid(format_text("memory slot {} is not in use", slot)));
  }
  kvm_userspace_memory_region region = {};
  region.slot = slot;
  TRY(call(fd_, KVM_SET_USER_MEMORY_REGION, &region, "removing memory slot",
           format_text("{}", slot)));
  slot_in_use_[slot] = false;
  return {};
}

Result<void> KvmVm::register_irqfd(uint32_t gsi, const Fd& trigger, const Fd* resample) {
  kvm_irqfd irqfd = {};
  irqfd.fd = static_cast<uint32_t>(trigger.get());
  irqfd.gsi = gsi;
  if (resample != nullptr) {
    irqfd.flags = KVM_IRQFD_FLAG_RESAMPLE;
    irqfd.resamplefd = static_cast<uint32_t>(resample->get());
  }
  TRY(call(fd_, KVM_IRQFD, &irqfd, "adding an irqfd to GSI", format_text("{}", gsi)));
  return {};
}

Result<void> KvmVm::unregister_irqfd(uint32_t gsi, const Fd& trigger) {
  kvm_irqfd irqfd = {};
  irqfd.fd = static_cast<uint32_t>(trigger.get());
  irqfd.gsi = gsi;
  irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
  TRY(call(fd_, KVM_IRQFD, &irqfd, "removing an irqfd from GSI", format_text("{}", gsi)));
  return {};
}

Result<void> KvmVm::set_irq_routes(std::span<const IrqRoute> routes) {
  RouteList table(routes.size());
  std::transform(routes.begin(), routes.end(), table.entries().begin(), to_entry);
  TRY(call(fd_, kSetGsiRouting, table.header(), "setting interrupt routes,",
           format_text("{} entries", routes.size())));
  return {};
}

Result<void> KvmVm::set_irq_line(uint32_t gsi, bool level) {
  kvm_irq_level line = {};
  line.irq = gsi;
  line.level = level ? 1 : 0;
  TRY(call(fd_, KVM_IRQ_LINE, &line, "setting the level of GSI", format_text("{}", gsi)));
  return {};
}

Result<void> KvmVm::signal_msi(const MsiMessage& message) {
  kvm_msi msi = {};
  msi.address_lo = static_cast<uint32_t>(message.address);
  msi.address_hi = static_cast<uint32_t>(message.address >> 32);
  msi.data = message.data;
  const auto sent =
      call(fd_, KVM_SIGNAL_MSI, &msi, "sending an MSI to", format_text("{:#x}", message.address));
  // The kernel's way to say that no LAPIC answers to the address: as on a bus, the message is lost.
  if (!sent && sent.error().code() != std::errc::operation_not_permitted) return fail(sent.error());
  return {};
}

Result<void> KvmVm::register_ioevent(const IoEvent& what, const Fd& event) {
  return assign_ioevent(what, event, 0, "adding an ioeventfd to");
}

Result<void> KvmVm::unregister_ioevent(const IoEvent& what, const Fd& event) {
  return assign_ioevent(what, event, KVM_IOEVENTFD_FLAG_DEASSIGN, "removing an ioeventfd from");
}

Result<void> KvmVm::assign_ioevent(const IoEvent& what, const Fd& event, uint32_t flags,
                                   std::string_view doing) {
  kvm_ioeventfd request = {};
  request.addr = what.address;
  request.len = what.length;
  request.fd = event.get();
  request.flags = flags;
  if (what.space == IoEvent::Space::kPort) request.flags |= KVM_IOEVENTFD_FLAG_PIO;
  if (what.datamatch) {
    request.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
    request.datamatch = *what.datamatch;
  }
  TRY(call(fd_, KVM_IOEVENTFD, &request, doing, name_of(what)));
  return {};
}

Result<void> KvmVm::set_reserved_pages(GuestAddress tss, GuestAddress identity_map) {
  TRY(call(fd_, KVM_SET_TSS_ADDR, static_cast<unsigned long>(tss.value), "placing the TSS at",
           format_text("{:#x}", tss.value)));
  uint64_t address = identity_map.value;
  TRY(call(fd_, KVM_SET_IDENTITY_MAP_ADDR, &address, "placing the identity map at",
           format_text("{:#x}", address)));
  return {};
}

Result<void> KvmVm::create_kernel_irqchip() {
  TRY(call(fd_, KVM_CREATE_IRQCHIP, 0ul, "creating the in-kernel", "interrupt controllers"));
  kvm_pit_config pit = {};
  TRY(call(fd_, KVM_CREATE_PIT2, &pit, "creating the in-kernel", "PIT"));
  return {};
}

Result<std::unique_ptr<x86_64::Vcpu>> KvmVm::create_vcpu(uint32_t id) {
  const std::string object = format_text("vCPU {}", id);
  Fd fd(TRY(call(fd_, KVM_CREATE_VCPU, static_cast<unsigned long>(id), "creating", object)));
  auto run = TRY(RunArea::map(fd, run_size_, object));
  return std::unique_ptr<x86_64::Vcpu>(new KvmVcpu(id, std::move(fd), std::move(run)));
}

}  // namespace crosvm::kvm
