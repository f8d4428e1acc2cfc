#include <set>

#include "arch/x86_64/acpi.h"

namespace crosvm::x86_64 {
namespace {

constexpr uint32_t kLocalApicAddress = 0xFEE00000;
constexpr uint32_t kIoApicAddress = 0xFEC00000;
constexpr uint32_t kPcatCompat = 1;  // there is a pair of 8259s too
constexpr uint32_t kEnabled = 1;
constexpr uint16_t kActiveLow = 3;
constexpr uint16_t kLevelTriggered = 3 << 2;
constexpr uint32_t kFirstWideApicId = 255;  // one byte holds 0 to 254; 255 means all of them

/// A local APIC entry holds ids of one byte; vCPUs beyond them take the x2APIC entry.
void append_processor(TableBytes& body, uint32_t vcpu, uint32_t apic_id) {
  if (apic_id < kFirstWideApicId && vcpu < kFirstWideApicId) {
    append_object(body, AcpiMadtLocalApic{.processor_uid = static_cast<uint8_t>(vcpu),
                                          .apic_id = static_cast<uint8_t>(apic_id),
                                          .flags = kEnabled});
  } else {
    append_object(body, AcpiMadtLocalX2apic{
                            .x2apic_id = apic_id, .flags = kEnabled, .processor_uid = vcpu + 1});
  }
}

/// PCI's lines are active-low and level-triggered, where ISA's default is the opposite.
void append_pci_overrides(TableBytes& body, const AcpiPci& pci) {
  std::set<uint32_t> gsis;
  for (const PciIntx& irq : pci.irqs) gsis.insert(irq.gsi);
  for (uint32_t gsi : gsis) {
    CHECK(gsi <= UINT8_MAX);
    append_object(body, AcpiMadtInterruptOverride{.bus = 0,
                                                  .source = static_cast<uint8_t>(gsi),
                                                  .gsi = gsi,
                                                  .flags = kActiveLow | kLevelTriggered});
  }
}

}  // namespace

TableBytes build_madt(const AcpiConfig& config) {
  CHECK(config.apic_ids.empty() || config.apic_ids.size() == config.vcpus);
  TableBytes body;
  append_object(body, AcpiMadtHead{.local_apic_address = kLocalApicAddress, .flags = kPcatCompat});
  for (uint32_t vcpu = 0; vcpu < config.vcpus; ++vcpu)
    append_processor(body, vcpu, config.apic_ids.empty() ? vcpu : config.apic_ids[vcpu]);
  append_object(body, AcpiMadtIoApic{.io_apic_id = 0, .address = kIoApicAddress, .gsi_base = 0});
  if (config.pci) append_pci_overrides(body, *config.pci);
  if (config.user.madt) {
    auto overrides = interrupt_overrides_of(config.user.madt->bytes);
    CHECK(overrides.has_value());  // sort_user_tables has seen them
    for (const TableBytes& entry : *overrides) body.insert(body.end(), entry.begin(), entry.end());
  }
  return make_table("APIC", 5, body);
}

}  // namespace crosvm::x86_64
