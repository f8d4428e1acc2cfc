#include "arch/x86_64/acpi.h"
#include "arch/x86_64/aml.h"
#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

constexpr std::string_view kOscUuid = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
// _OSC control bits that stay (PCI Firmware 3.2, table 4-6): native hot-plug, PME, capability
// structure. SHPC hot-plug (bit 1) and AER (bit 3) go.
constexpr uint64_t kOscControlMask = 0x15;
constexpr uint64_t kOscUnrecognizedUuid = 1 << 2;

/// What a sleep state puts in SLP_TYP of PM1a and PM1b (platform.md 1.12).
aml::Term sleep_state(std::string_view path, uint64_t sleep_type) {
  return aml::name(path, aml::package({aml::integer(sleep_type), aml::integer(sleep_type),
                                       aml::integer(0), aml::integer(0)}));
}

aml::Term bridge_resources(const AcpiPci& pci) {
  aml::Terms descriptors = {aml::bus_numbers(0, pci.last_bus()), aml::io_ports(0xCF8, 8)};
  for (const AcpiWindow& window : pci.mmio)
    if (window.size > 0) descriptors.push_back(aml::memory_window(window.base.value, window.size));
  return aml::name("_CRS", aml::resource_template(descriptors));
}

/// _OSC(uuid, revision, count, capabilities): grants what the bridge can do.
aml::Term bridge_osc() {
  aml::Term capabilities = aml::arg(3);
  return aml::method(
      "_OSC", 4, aml::Serialized::kYes,
      {aml::create_dword_field(capabilities, 0, "CDW1"),
       aml::if_true(
           aml::equal(aml::arg(0), aml::uuid(kOscUuid)),
           {aml::create_dword_field(capabilities, 4, "CDW2"),
            aml::create_dword_field(capabilities, 8, "CDW3"),
            aml::store(aml::path("CDW2"), aml::path("SUPP")),
            aml::bit_and(aml::path("CDW3"), aml::integer(kOscControlMask), aml::path("CDW3"))}),
       aml::otherwise(
           {aml::bit_or(aml::path("CDW1"), aml::integer(kOscUnrecognizedUuid), aml::path("CDW1"))}),
       aml::return_value(capabilities)});
}

/// Which line each INTx pin of bus 0 drives. Pins behind bridges are not listed: a guest derives
/// them from the bridge's own.
aml::Terms bridge_routes(const AcpiPci& pci) {
  aml::Terms routes;
  for (const PciIntx& irq : pci.irqs) {
    if (irq.bus != 0) continue;
    // The function stands in the address, where other firmware has 0xFFFF for "any".
    uint64_t address = uint64_t{irq.device} << 16 | irq.function;
    routes.push_back(aml::package(
        {aml::integer(address), aml::integer(irq.pin), aml::integer(0), aml::integer(irq.gsi)}));
  }
  return routes;
}

aml::Term function_device(const AcpiPciFunction& function) {
  CHECK(function.device < 32 && function.function < 8 && function.secondary_bus != 0);
  std::string name = function.secondary_bus
                         ? format_text("PC{:02X}", *function.secondary_bus)
                         : format_text("PE{:02X}", function.device << 3 | function.function);
  uint64_t address = uint64_t{function.device} << 16 | function.function;
  return aml::device(name, {aml::name("_ADR", aml::integer(address)),
                            // Wakes the machine from S3 or a lighter state through GPE 0.
                            aml::name("_PRW", aml::package({aml::integer(0), aml::integer(3)}))});
}

/// Without an _ADR: a device has that or a _HID, not both (ACPI 6.3, 6.1).
aml::Term host_bridge(const AcpiPci& pci) {
  aml::Terms body = {aml::name("_HID", aml::eisa_id("PNP0A08")),
                     aml::name("_CID", aml::eisa_id("PNP0A03")),
                     aml::name("_SEG", aml::integer(0)),
                     aml::name("_UID", aml::integer(0)),
                     aml::name("SUPP", aml::integer(0)),
                     bridge_resources(pci),
                     bridge_osc()};
  aml::Terms routes = bridge_routes(pci);
  if (!routes.empty()) body.push_back(aml::name("_PRT", aml::package(routes)));
  for (const AcpiPciFunction& function : pci.functions) body.push_back(function_device(function));
  return aml::device("PC00", body);
}

/// A guest uses ECAM only where a motherboard device reserves it.
aml::Term ecam_reservation(const AcpiWindow& ecam) {
  return aml::device("MB00", {aml::name("_HID", aml::eisa_id("PNP0C02")),
                              aml::name("_CRS", aml::resource_template({aml::memory32_fixed(
                                                    static_cast<uint32_t>(ecam.base.value),
                                                    static_cast<uint32_t>(ecam.size))}))});
}

}  // namespace

TableBytes build_dsdt(const AcpiConfig& config) {
  aml::Terms body;
  if (config.pci) {
    const AcpiPci& pci = *config.pci;
    CHECK(pci.ecam.base.value + pci.ecam.size <= 1ull << 32);
    body.push_back(aml::name("VCFG", aml::integer(pci.vcfg.value)));
    body.push_back(aml::scope("\\_SB_", {host_bridge(pci), ecam_reservation(pci.ecam)}));
  }
  body.push_back(sleep_state("_S1_", 1));
  body.push_back(sleep_state("_S5_", 0));
  return make_table("DSDT", 6, aml::concatenate(body));
}

}  // namespace crosvm::x86_64
