#include "arch/x86_64/mptable.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <span>
#include <string_view>
#include <tuple>

#include "arch/x86_64/acpi_tables.h"
#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

using Bytes = std::vector<std::byte>;

struct [[gnu::packed]] FloatingPointer {
  char signature[4];
  uint32_t table_address;
  uint8_t length;  // in units of 16 bytes
  uint8_t spec_rev;
  uint8_t checksum;
  uint8_t features[5];
};
static_assert(sizeof(FloatingPointer) == 16);

struct [[gnu::packed]] TableHeader {
  char signature[4];
  uint16_t length;
  uint8_t spec_rev;
  uint8_t checksum;
  char oem_id[8];
  char product_id[12];
  uint32_t oem_table;
  uint16_t oem_table_size;
  uint16_t entry_count;
  uint32_t local_apic_address;
  uint16_t extended_length;
  uint8_t extended_checksum;
  uint8_t reserved;
};
static_assert(sizeof(TableHeader) == 44);

struct [[gnu::packed]] ProcessorEntry {
  uint8_t type = 0;
  uint8_t local_apic_id;
  uint8_t local_apic_version = 0x14;
  uint8_t flags;
  uint32_t signature = 0x600;
  uint32_t features = 0x201;  // an FPU and an APIC
  uint64_t reserved = 0;
};
static_assert(sizeof(ProcessorEntry) == 20);

struct [[gnu::packed]] BusEntry {
  uint8_t type = 1;
  uint8_t id;
  char name[6];
};
static_assert(sizeof(BusEntry) == 8);

struct [[gnu::packed]] IoApicEntry {
  uint8_t type = 2;
  uint8_t id;
  uint8_t version = 0x14;
  uint8_t flags = 1;  // enabled
  uint32_t address = 0xFEC00000;
};
static_assert(sizeof(IoApicEntry) == 8);

constexpr uint8_t kIoInterrupt = 3;
constexpr uint8_t kLocalInterrupt = 4;

struct [[gnu::packed]] InterruptEntry {
  uint8_t type;
  uint8_t delivery;
  uint16_t flags;
  uint8_t source_bus;
  uint8_t source_irq;
  uint8_t apic_id;
  uint8_t pin;
};
static_assert(sizeof(InterruptEntry) == 8);

constexpr uint8_t kSpecRevision = 4;  // 1.4
constexpr uint32_t kLocalApicAddress = 0xFEE00000;
constexpr uint32_t kMaxVcpus = 254;  // the IOAPIC's id is one more, and one byte
constexpr uint8_t kAllApics = 0xFF;
constexpr uint8_t kEnabled = 1;
constexpr uint8_t kBootProcessor = 2;

// Delivery and flags (4.3.4). Flags 0: as the bus defines it.
constexpr uint8_t kInt = 0;
constexpr uint8_t kNmi = 1;
constexpr uint8_t kExtInt = 3;
constexpr uint16_t kConforming = 0;
constexpr uint16_t kActiveHighLevel = 0x0D;

/// The configuration table, entry by entry.
class TableWriter {
 public:
  TableWriter() { append(TableHeader{}); }

  template <class T>
  void add(const T& entry) {
    append(entry);
    ++entries_;
  }

  Bytes finish() && {
    TableHeader header = {};
    std::memcpy(header.signature, "PCMP", 4);
    header.length = static_cast<uint16_t>(bytes_.size());
    header.spec_rev = kSpecRevision;
    std::memcpy(header.oem_id, "CROSVM  ", 8);
    std::memcpy(header.product_id, "000000000000", 12);
    header.entry_count = entries_;
    header.local_apic_address = kLocalApicAddress;
    std::memcpy(bytes_.data(), &header, sizeof(header));
    bytes_[offsetof(TableHeader, checksum)] = std::byte{checksum_of(bytes_)};
    return std::move(bytes_);
  }

 private:
  template <class T>
  void append(const T& object) {
    auto bytes = std::as_bytes(std::span(&object, 1));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }

  Bytes bytes_;
  uint16_t entries_ = 0;
};

/// Adds the PCI buses and the ISA bus after them; returns the id of the ISA bus.
uint8_t add_buses(TableWriter& table, const MptableConfig& config) {
  auto add = [&](uint8_t id, std::string_view name) {
    BusEntry bus{.id = id, .name = {}};
    std::memcpy(bus.name, name.data(), sizeof(bus.name));
    table.add(bus);
  };
  uint8_t isa = 0;
  if (config.last_pci_bus) {
    // Bus 255 has to give its id to the ISA bus.
    isa = static_cast<uint8_t>(std::min<int>(*config.last_pci_bus, UINT8_MAX - 1) + 1);
    for (uint8_t bus = 0; bus < isa; ++bus) add(bus, "PCI   ");
  }
  add(isa, "ISA   ");
  return isa;
}

/// Adds what is wired to the pins of the IOAPIC (platform.md 1.4).
void add_io_interrupts(TableWriter& table, const MptableConfig& config, uint8_t isa_bus,
                       uint8_t io_apic) {
  auto add = [&](uint16_t flags, uint8_t bus, uint8_t irq, uint32_t gsi) {
    table.add(InterruptEntry{.type = kIoInterrupt,
                             .delivery = kInt,
                             .flags = flags,
                             .source_bus = bus,
                             .source_irq = irq,
                             .apic_id = io_apic,
                             .pin = static_cast<uint8_t>(gsi)});
  };
  constexpr uint8_t kAlwaysPresent[] = {0, 1, 2, 3, 4, 8};
  constexpr uint32_t kLastIsaIrq = 15;
  for (uint8_t irq : kAlwaysPresent) add(kConforming, isa_bus, irq, irq);
  add(kActiveHighLevel, isa_bus, static_cast<uint8_t>(config.sci_gsi), config.sci_gsi);

  uint32_t highest = config.sci_gsi;
  std::set<std::tuple<uint8_t, uint8_t>> seen;  // functions that share a pin share its entry
  for (const PciIntx& irq : config.pci_irqs) {
    highest = std::max(highest, irq.gsi);
    if (irq.bus == isa_bus) continue;  // bus 255, which has no entry
    uint8_t source = static_cast<uint8_t>(irq.device << 2 | irq.pin);
    if (seen.emplace(irq.bus, source).second) add(kConforming, irq.bus, source, irq.gsi);
  }
  for (uint32_t irq = highest + 1; irq <= kLastIsaIrq; ++irq)
    if (irq > 4 && irq != 8) add(kConforming, isa_bus, static_cast<uint8_t>(irq), irq);
}

void add_local_interrupts(TableWriter& table, uint8_t isa_bus) {
  auto add = [&](uint8_t delivery, uint8_t apic, uint8_t pin) {
    table.add(InterruptEntry{.type = kLocalInterrupt,
                             .delivery = delivery,
                             .flags = kConforming,
                             .source_bus = isa_bus,
                             .source_irq = 0,
                             .apic_id = apic,
                             .pin = pin});
  };
  add(kExtInt, 0, 0);
  add(kNmi, kAllApics, 1);
}

FloatingPointer make_floating_pointer(GuestAddress table) {
  FloatingPointer pointer = {};
  std::memcpy(pointer.signature, "_MP_", 4);
  pointer.table_address = static_cast<uint32_t>(table.value);
  pointer.length = 1;
  pointer.spec_rev = kSpecRevision;
  pointer.checksum = checksum_of(std::as_bytes(std::span(&pointer, 1)));
  return pointer;
}

}  // namespace

Result<std::vector<std::byte>> build_mptable(const MptableConfig& config) {
  if (config.vcpus == 0 || config.vcpus > kMaxVcpus) {
    return fail(Error::invalid(
        format_text("{} vCPUs asked for, but the MP table can describe 1 to {}; change --cpus, or "
                    "give a FADT with --acpi-table, which replaces the MP table",
                    config.vcpus, kMaxVcpus)));
  }
  TableWriter table;
  for (uint32_t cpu = 0; cpu < config.vcpus; ++cpu) {
    table.add(
        ProcessorEntry{.local_apic_id = static_cast<uint8_t>(cpu),
                       .flags = static_cast<uint8_t>(kEnabled | (cpu == 0 ? kBootProcessor : 0))});
  }
  uint8_t isa_bus = add_buses(table, config);
  uint8_t io_apic = static_cast<uint8_t>(config.vcpus + 1);
  table.add(IoApicEntry{.id = io_apic});
  add_io_interrupts(table, config, isa_bus, io_apic);
  add_local_interrupts(table, isa_bus);
  return std::move(table).finish();
}

Result<void> write_mptable(const GuestMemory& memory, GuestAddress base,
                           GuestAddress floating_pointer, const MptableConfig& config) {
  CHECK(floating_pointer.value % 16 == 0 && floating_pointer.value <= UINT32_MAX);
  std::vector<std::byte> table = TRY(build_mptable(config));
  uint64_t room = floating_pointer.value - base.value;
  if (table.size() > room) {
    return fail(Error(std::errc::no_buffer_space,
                      format_text("the MP table needs {} bytes, but its area has {}; use fewer "
                                  "vCPUs or a smaller ECAM window (fewer PCI buses)",
                                  table.size(), room)));
  }
  TRY(with_context(memory.write_bytes(base, table), "writing the MP table"));
  FloatingPointer pointer = make_floating_pointer(base);
  return with_context(memory.write(floating_pointer, pointer), "writing the MP floating pointer");
}

}  // namespace crosvm::x86_64
