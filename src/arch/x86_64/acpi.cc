#include "arch/x86_64/acpi.h"

#include <cstring>

#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

constexpr size_t kTableAlignment = 64;

/// The tables one after the other from a guest address on.
class TableArea {
 public:
  explicit TableArea(GuestAddress base) : base_(base) {
    CHECK(base.value % kTableAlignment == 0);
    bytes_.resize(sizeof(AcpiRsdp));  // filled in last
  }

  GuestAddress add(const TableBytes& table) {
    size_t at = (bytes_.size() + kTableAlignment - 1) / kTableAlignment * kTableAlignment;
    bytes_.resize(at);
    bytes_.insert(bytes_.end(), table.begin(), table.end());
    return base_ + at;
  }

  TableBytes finish(GuestAddress xsdt) && {
    AcpiRsdp rsdp = {};
    std::memcpy(rsdp.signature, "RSD PTR ", 8);
    std::memcpy(rsdp.oem_id, "CROSVM", 6);
    rsdp.revision = 2;
    rsdp.length = sizeof(rsdp);
    rsdp.xsdt_address = xsdt.value;
    auto bytes = std::as_bytes(std::span(&rsdp, 1));
    rsdp.checksum = checksum_of(bytes.first(20));  // the part that ACPI 1.0 knows
    rsdp.extended_checksum = checksum_of(bytes);
    std::memcpy(bytes_.data(), &rsdp, sizeof(rsdp));
    return std::move(bytes_);
  }

 private:
  GuestAddress base_;
  TableBytes bytes_;
};

TableBytes build_xsdt(const std::vector<GuestAddress>& tables) {
  TableBytes body;
  for (GuestAddress table : tables) append_object(body, table.value);
  return make_table("XSDT", 1, body);
}

std::string describe_user_tables(const UserAcpiTables& user) {
  std::string text;
  auto add = [&](const UserAcpiTable& table) {
    text +=
        format_text("{}{} ({} bytes)", text.empty() ? "" : ", ", table.path, table.bytes.size());
  };
  for (const auto* table : {&user.fadt, &user.dsdt})
    if (*table) add(**table);
  for (const UserAcpiTable& table : user.appended) add(table);
  return text;
}

}  // namespace

TableBytes build_facs() {
  AcpiFacs facs = {};
  std::memcpy(facs.signature, "FACS", 4);
  facs.length = sizeof(facs);
  facs.version = 1;
  TableBytes table;
  append_object(table, facs);
  return table;
}

TableBytes build_mcfg(const AcpiPci& pci) {
  AcpiMcfgBody body = {};
  body.ecam_base = pci.ecam.base.value;
  body.last_bus = pci.last_bus();
  return make_table("MCFG", 1, std::as_bytes(std::span(&body, 1)));
}

TableBytes build_acpi(GuestAddress base, const AcpiConfig& config) {
  TableArea area(base);
  GuestAddress facs = area.add(build_facs());
  GuestAddress dsdt = area.add(config.user.dsdt ? config.user.dsdt->bytes : build_dsdt(config));

  std::vector<GuestAddress> listed;  // in the order of platform.md 1.11
  for (const UserAcpiTable& table : config.user.appended) listed.push_back(area.add(table.bytes));
  listed.push_back(area.add(build_fadt(config, facs, dsdt)));
  listed.push_back(area.add(build_madt(config)));
  if (config.pci) listed.push_back(area.add(build_mcfg(*config.pci)));
  GuestAddress xsdt = area.add(build_xsdt(listed));
  return std::move(area).finish(xsdt);
}

Result<void> write_acpi(const GuestMemory& memory, GuestAddress base, GuestAddress end,
                        const AcpiConfig& config) {
  TableBytes area = build_acpi(base, config);
  uint64_t room = end.value - base.value;
  if (area.size() > room) {
    std::string user = describe_user_tables(config.user);
    return fail(Error(
        std::errc::no_buffer_space,
        format_text("the ACPI tables need {} bytes, but their area has {}; {}", area.size(), room,
                    user.empty() ? "use fewer vCPUs or PCI devices"
                                 : "leave out or shorten --acpi-table " + user)));
  }
  return with_context(memory.write_bytes(base, area), "writing the ACPI tables");
}

}  // namespace crosvm::x86_64
