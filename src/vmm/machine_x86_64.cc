#include "vmm/machine_x86_64.h"

#include <fcntl.h>
#include <unistd.h>

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/cmdline.h"
#include "arch/x86_64/linux_boot.h"
#include "arch/x86_64/mptable.h"
#include "arch/x86_64/smbios.h"
#include "arch/x86_64/vcpu_setup.h"
#include "base/format.h"
#include "base/log.h"
#include "hypervisor/kvm/kvm.h"
#include "hypervisor/x86_64/irq_routes.h"
#include "pci/pci_config_access.h"
#include "pci/pvpanic.h"
#include "platform/cmos.h"
#include "platform/debugcon.h"
#include "platform/i8042.h"
#include "platform/serial.h"
#include "virtio/virtio_pci.h"

namespace crosvm {

namespace {

/// The first run of ports that the allocator hands out.
constexpr uint16_t kPmBase = x86_64::kFirstDynamicPort;

/// The lines of PCI: from 9 on, without that of the SCI.
std::array<uint32_t, IntxLines::kLines> pci_gsis(uint32_t sci) {
  std::array<uint32_t, IntxLines::kLines> gsis{};
  uint32_t next = x86_64::kFirstPciGsi;
  for (uint32_t& gsi : gsis) {
    if (next == sci) ++next;
    gsi = next++;
  }
  return gsis;
}

/// As the firmware tables want them.
std::vector<x86_64::PciIntx> firmware_irqs(const IntxLines& lines) {
  std::vector<x86_64::PciIntx> irqs;
  for (const IntxAssignment& assigned : lines.assignments()) {
    irqs.push_back({.bus = assigned.address.bus,
                    .device = assigned.address.device,
                    .function = assigned.address.function,
                    .pin = assigned.pin,
                    .gsi = assigned.gsi});
  }
  return irqs;
}

/// What the user gave, our own values for the rest.
x86_64::SmbiosConfig smbios(const SmbiosIdentity& given) {
  x86_64::SmbiosConfig config;
  config.bios_vendor = given.bios_vendor.value_or(config.bios_vendor);
  config.bios_version = given.bios_version.value_or(config.bios_version);
  config.manufacturer = given.manufacturer.value_or(config.manufacturer);
  config.product_name = given.product_name.value_or(config.product_name);
  config.serial_number = given.serial_number.value_or(config.serial_number);
  config.uuid = given.uuid.value_or(config.uuid);
  config.oem_strings = given.oem_strings;
  return config;
}

}  // namespace

using namespace x86_64;  // NOLINT(google-build-using-namespace): the wiring of this architecture

Result<std::unique_ptr<Machine>> build_machine(const Config& config, EventLoop& loop,
                                               const Fd& interrupt, MachineEvents events,
                                               std::unique_ptr<Workers> workers) {
  return MachineX86::build(config, loop, interrupt, std::move(events), std::move(workers));
}

MachineX86::MachineX86(const Config& config, EventLoop& loop, MachineEvents events,
                       std::unique_ptr<Workers> workers)
    : config_(config),
      loop_(loop),
      events_(std::move(events)),
      workers_(std::move(workers)),
      vcpus_(io_, {.ended = [this](ExitState state) { events_.ended(state); },
                   .resumed = [this] { pm_->resumed(); }}) {}

MachineX86::~MachineX86() { stop(); }

Result<std::unique_ptr<Machine>> MachineX86::build(const Config& config, EventLoop& loop,
                                                   const Fd& interrupt, MachineEvents events,
                                                   std::unique_ptr<Workers> workers) {
  std::unique_ptr<MachineX86> machine(
      new MachineX86(config, loop, std::move(events), std::move(workers)));
  BootFiles files = TRY(open_boot_files(config));
  machine->stop_event_ = TRY(make_eventfd());
  TRY(machine->read_user_acpi());
  TRY(machine->open_devices(interrupt));
  TRY(machine->create_memory());
  TRY(machine->create_vm());
  TRY(machine->add_pci());
  TRY(machine->add_pci_functions());
  TRY(machine->add_serial_ports());
  TRY(machine->add_power_management());
  if (config.rtc) TRY(machine->add_rtc());
  if (config.i8042) TRY(machine->add_i8042());
  TRY(machine->load_guest(files));
  TRY(machine->write_firmware_tables());
  TRY(machine->create_vcpus());
  return machine;
}

Result<void> MachineX86::read_user_acpi() {
  std::vector<UserAcpiTable> tables;
  for (const std::string& path : config_.acpi_tables) {
    constexpr uint64_t kLargest = 1 << 20;
    tables.push_back({.path = path, .bytes = TRY(read_user_file(path, "ACPI table", kLargest))});
  }
  user_acpi_ = TRY(sort_user_tables(std::move(tables)));
  sci_gsi_ = user_acpi_.sci_gsi().value_or(kSciGsi);
  if (sci_gsi_ < kIoapicPins) return {};
  return fail(Error::invalid(
      format_text("ACPI table {}: its SCI {} is no pin of the interrupt controller; it has {}",
                  user_acpi_.fadt->path, sci_gsi_, kIoapicPins)));
}

/// Their processes start while the rest of the machine is built.
Result<void> MachineX86::open_devices(const Fd& interrupt) {
  virtio_ =
      TRY(VirtioDevices::open(config_, serial_host(), workers_ ? &workers_->spawner() : nullptr));
  for (const auto& console : virtio_.consoles) reads_terminal_ |= console->reads_terminal();
  if (workers_) TRY(virtio_.start(*workers_));
  return virtio_.frontends.connect(
      config_.vhost_user,
      {.connect_timeout = config_.vhost_user_connect_timeout, .interrupt = &interrupt}, loop_,
      [this](const std::string& device, const std::string& socket) {
        log::error("{}: the back-end at {} has gone; the VM ends with it", device, socket);
        events_.ended(ExitState::kCrash);
      });
}

Result<void> MachineX86::create_memory() {
  uint64_t bytes = config_.memory_mib * kMiB;
  layout_ = TRY(
      plan_memory({.ram_bytes = bytes, .host_physical_bits = physical_address_bits(host_cpuid)}));
  memory_ = TRY(GuestMemory::create(
      layout_.ram, {.hugepages = config_.hugepages, .lock = config_.lock_guest_memory}));
  return {};
}

Result<void> MachineX86::create_vm() {
  hypervisor_ = TRY(open_kvm(config_.kvm_device));
  if (config_.vcpus > hypervisor_->max_vcpus()) {
    return fail(Error::invalid(
        format_text("--cpus {}: the hypervisor gives a VM at most {} vCPUs; ask for fewer",
                    config_.vcpus, hypervisor_->max_vcpus())));
  }
  vm_ = TRY(hypervisor_->create_vm());
  // Slots before the interrupt chip: after it each costs milliseconds.
  TRY(vm_->map_ram(*memory_));
  TRY(vm_->set_reserved_pages(kTss, kIdentityMap));
  TRY(vm_->create_kernel_irqchip());
  msi_routes_.emplace(*vm_, default_irq_routes(), kIoapicPins);
  relay_ = TRY(InterruptRelay::create());
  return {};
}

Result<Fd> MachineX86::edge_interrupt(uint32_t gsi) {
  Fd event = TRY(make_eventfd());
  TRY(vm_->register_irqfd(gsi, event, nullptr));
  return event;
}

Result<void> MachineX86::add_pci() {
  const AddressRange& low = layout_.low_mmio;
  const AddressRange& high = layout_.high_mmio;
  pci_.emplace(io_.mmio(), io_.ports(),
               PciWindows{.low_mmio = {low.start.value, layout_.ecam.start.value},
                          .high_mmio = {high.start.value, high.end().value},
                          .io = {kFirstDynamicPort + kDynamicPortGranularity, 0x10000}});
  pci_->announce_ecam(layout_.ecam.start.value);
  auto reset = [this] { events_.ended(ExitState::kReset); };
  TRY(io_.ports().insert(PciConfigPorts::kBase, PciConfigPorts::kLength,
                         std::make_shared<PciConfigPorts>(*pci_, reset)));
  TRY(io_.mmio().insert(layout_.ecam.start.value, layout_.ecam.size,
                        std::make_shared<PciEcam>(*pci_)));
  intx_lines_.emplace(pci_gsis(sci_gsi_));
  return {};
}

Result<void> MachineX86::add_pci_functions() {
  // In the order of creation, which the guest sees in its slots.
  std::vector<PciWish> wishes = TRY(virtio_.wishes());
  for (PciWish& wish : wishes) wish.intx = config_.virtio_intx;
  wishes.push_back({.label = "pvpanic", .intx = false});
  const std::vector<PciPlace> places = TRY(reserve_places(*pci_, *intx_lines_, wishes));
  std::vector<std::unique_ptr<DeviceBackend>> backends = TRY(virtio_.run(workers_.get()));
  for (size_t i = 0; i < backends.size(); ++i) TRY(add_virtio(std::move(backends[i]), places[i]));
  return pci_->add_reserved(std::make_shared<Pvpanic>(events_.panicked), places.back().address);
}

Result<void> MachineX86::add_virtio(std::unique_ptr<DeviceBackend> backend, const PciPlace& place) {
  VirtioPci::Options options;
  std::optional<uint32_t> gsi;
  if (place.intx) {
    gsi = place.intx->gsi;
    options.intx = {.pin = static_cast<uint8_t>(place.intx->pin + 1),
                    .line = static_cast<uint8_t>(place.intx->gsi)};
  }
  auto interrupts =
      TRY(PciInterrupts::create({.vm = *vm_, .routes = *msi_routes_, .relay = *relay_},
                                VirtioPci::interrupts_for(backend->info(), gsi)));
  std::shared_ptr<VirtioPci> device =
      TRY(VirtioPci::create(std::move(backend), *memory_, *vm_, std::move(interrupts), options));
  return pci_->add_reserved(std::move(device), place.address);
}

SerialHost MachineX86::serial_host() {
  return {.loop = loop_, .stop_event = stop_event_, .leave = events_.left_by_escape};
}

Result<void> MachineX86::add_serial_ports() {
  for (const SerialConfig& port : config_.serial) {
    if (port.hardware == SerialConfig::Hardware::kVirtioConsole) continue;  // a PCI function
    SerialBackend backend = TRY(open_serial_backend(port, serial_host()));
    reads_terminal_ |= backend.reads_terminal;
    if (port.hardware == SerialConfig::Hardware::kDebugcon) {
      TRY(io_.ports().insert(port.debugcon_port, Debugcon::kLength,
                             std::make_shared<Debugcon>(std::move(backend.output))));
      continue;
    }
    size_t index = port.num - 1U;
    auto serial = std::make_shared<Serial>(TRY(edge_interrupt(Serial::kGsis.at(index))),
                                           std::move(backend.output), std::move(backend.input));
    TRY(io_.ports().insert(Serial::kPorts.at(index), Serial::kLength, std::move(serial)));
  }
  return {};
}

Result<void> MachineX86::add_power_management() {
  Fd trigger = TRY(make_eventfd());
  Fd resample = TRY(make_eventfd());
  TRY(vm_->register_irqfd(sci_gsi_, trigger, &resample));
  PmActions actions{
      .suspend = [this] { vcpus_.suspend(); },
      .resume = [this] { vcpus_.resume(); },
      .exit = [this] { events_.ended(ExitState::kStop); },
  };
  pm_ = TRY(Pm::create(loop_, std::move(trigger), std::move(resample), std::move(actions)));
  return io_.ports().insert(kPmBase, Pm::kLength, pm_);
}

Result<void> MachineX86::add_rtc() {
  Cmos::Memory memory;
  for (const RamRange& range : layout_.ram) {
    (range.base < kFourGiB ? memory.below_4g : memory.above_4g) += range.size;
  }
  auto wake = [this](Fd clear) { pm_->rtc_wake(std::move(clear)); };
  std::shared_ptr<Cmos> cmos =
      TRY(Cmos::create(loop_, memory, TRY(edge_interrupt(kRtcGsi)), wake, host_clock));
  return io_.ports().insert(Cmos::kBase, Cmos::kLength, std::move(cmos));
}

Result<void> MachineX86::add_i8042() {
  auto reset = [this] { events_.ended(ExitState::kReset); };
  return io_.ports().insert(I8042::kBase, I8042::kLength, std::make_shared<I8042>(reset));
}

Result<std::string> MachineX86::command_line() const {
  CommandLineParts parts{.consoles = console_parameters(config_.serial),
                         .early_console = std::nullopt,
                         .params = config_.params};
  if (config_.root_parameter) parts.params.push_back(*config_.root_parameter);
  for (const SerialConfig& port : config_.serial) {
    if (port.earlycon && !parts.early_console) {
      parts.early_console = {.mmio = false, .address = Serial::kPorts.at(port.num - 1U)};
    }
  }
  return build_command_line(parts);
}

Result<void> MachineX86::load_guest(const BootFiles& files) {
  LinuxBootRequest request{.kernel = {.fd = files.kernel, .name = config_.kernel},
                           .initrd = std::nullopt,
                           .command_line = TRY(command_line()),
                           .entry = config_.kernel_entry};
  if (files.initrd) request.initrd.emplace(*files.initrd, *config_.initrd);
  boot_ = TRY(load_linux(*memory_, layout_, request));
  return {};
}

Result<void> MachineX86::write_firmware_tables() {
  AcpiPci pci{
      .ecam = {layout_.ecam.start, layout_.ecam.size},
      .mmio = {{layout_.low_mmio.start, layout_.ecam.start.value - layout_.low_mmio.start.value},
               {layout_.high_mmio.start, layout_.high_mmio.size}},
      .vcfg = layout_.vcfg.start,
      .irqs = firmware_irqs(*intx_lines_),
      .functions = {}};
  for (PciAddress address : pci_->addresses()) {
    if (address.bus != 0) continue;
    pci.functions.push_back(
        {.device = address.device, .function = address.function, .secondary_bus = std::nullopt});
  }
  uint8_t last_bus = pci.last_bus();
  AcpiConfig acpi{.vcpus = config_.vcpus,
                  .apic_ids = {},
                  .pm_base = kPmBase,
                  .sci_gsi = static_cast<uint16_t>(sci_gsi_),
                  .low_power_s0 = false,
                  .pci = std::move(pci),
                  .user = std::move(user_acpi_)};
  bool user_fadt = acpi.user.fadt.has_value();
  TRY(write_acpi(*memory_, kRsdp, kSmbios, acpi));
  TRY(write_smbios(*memory_, kSmbios, kHighMemory, smbios(config_.smbios)));
  if (user_fadt) return {};
  return write_mptable(*memory_, kMpTable, kMpFloatingPointer,
                       {.vcpus = config_.vcpus,
                        .sci_gsi = static_cast<uint16_t>(sci_gsi_),
                        .last_pci_bus = last_bus,
                        .pci_irqs = firmware_irqs(*intx_lines_)});
}

Result<void> MachineX86::create_vcpus() {
  std::vector<CpuidEntry> supported = TRY(hypervisor_->supported_cpuid());
  for (uint32_t id = 0; id < config_.vcpus; ++id) {
    auto vcpu = TRY(vm_->create_vcpu(id));
    VcpuBoot boot{.supported_cpuid = supported,
                  .cpuid = {.vcpu_id = id,
                            .vcpu_count = config_.vcpus,
                            .smt = config_.smt,
                            .nested = config_.nested,
                            .tsc_deadline = hypervisor_->has_tsc_deadline_timer()},
                  .mode = boot_->mode,
                  .registers = std::nullopt,
                  .uncached = uncached_range(layout_)};
    if (id == 0) boot.registers = boot_->registers;
    TRY(configure_vcpu(*vcpu, boot));
    created_vcpus_.push_back(std::move(vcpu));
  }
  return {};
}

Result<void> MachineX86::start() {
  if (reads_terminal_) {
    if (workers_) TRY(workers_->spawner().guard_terminal());
    Fd input(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0));
    if (std::optional<RawTerminal> raw = TRY(RawTerminal::enter(input))) {
      terminal_.emplace(std::move(*raw));
    }
    terminal_sizes_ = TRY(TerminalSizes::watch(loop_, [this](ConsoleSize size) {
      for (const auto& console : virtio_.consoles) console->resize(size);
    }));
  }
  VcpuGroup::Prelude confine;
  if (workers_) {
    TRY(confine_relay());
    confine = [&filters = workers_->filters()](const std::string& name) {
      return filters.enter(ThreadFilters::Role::kVcpu, name);
    };
  }
  return vcpus_.start(std::move(created_vcpus_), confine);
}

Result<void> MachineX86::confine_relay() {
  Result<void> entered;
  relay_->call(
      [&] { entered = workers_->filters().enter(ThreadFilters::Role::kRelay, "interrupt relay"); });
  return entered;
}

Result<void> MachineX86::press_power_button() {
  pm_->power_button();
  return {};
}

Result<void> MachineX86::press_sleep_button() {
  pm_->sleep_button();
  return {};
}

Result<void> MachineX86::raise_gpe(uint32_t number, Fd clear) {
  return pm_->gpe(number, std::move(clear));
}

Result<void> MachineX86::raise_rtc(Fd clear) {
  pm_->rtc_wake(std::move(clear));
  return {};
}

void MachineX86::command_device(std::string_view type, size_t index, DeviceCommand command,
                                CommandDone done) {
  virtio_.command(type, index, std::move(command), std::move(done));
}

void MachineX86::stop() {
  if (stop_event_) signal_eventfd(stop_event_);
  vcpus_.exit();
  terminal_sizes_.reset();
  terminal_.reset();
}

}  // namespace crosvm
