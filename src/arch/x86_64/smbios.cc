#include "arch/x86_64/smbios.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>

#include "arch/x86_64/acpi_tables.h"
#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

using Bytes = std::vector<std::byte>;

/// SMBIOS 3.2, 5.2.2.
struct [[gnu::packed]] EntryPoint {
  char anchor[5];
  uint8_t checksum;
  uint8_t length;
  uint8_t major_version;
  uint8_t minor_version;
  uint8_t docrev;
  uint8_t revision;
  uint8_t reserved;
  uint32_t table_max_size;
  uint64_t table_address;
};
static_assert(sizeof(EntryPoint) == 24);

struct [[gnu::packed]] Header {
  uint8_t type;
  uint8_t length;
  uint16_t handle;
};

/// Type 0 (7.1). String fields hold the number of a string after the structure, 0 for none.
struct [[gnu::packed]] BiosInformation {
  Header header;
  uint8_t vendor;
  uint8_t version;
  uint16_t starting_segment;
  uint8_t release_date;
  uint8_t rom_size;  // 64 KiB blocks, minus 1; 0xFF: see extended_rom_size
  uint64_t characteristics;
  uint8_t characteristics_extension[2];
  uint8_t bios_major;
  uint8_t bios_minor;
  uint8_t controller_major;
  uint8_t controller_minor;
  uint16_t extended_rom_size;  // MiB
};
static_assert(sizeof(BiosInformation) == 26);

/// Type 1 (7.2).
struct [[gnu::packed]] SystemInformation {
  Header header;
  uint8_t manufacturer;
  uint8_t product_name;
  uint8_t version;
  uint8_t serial_number;
  uint8_t uuid[16];
  uint8_t wake_up_type;
  uint8_t sku_number;
  uint8_t family;
};
static_assert(sizeof(SystemInformation) == 27);

/// Type 11 (7.12).
struct [[gnu::packed]] OemStrings {
  Header header;
  uint8_t count;
};

/// Type 127 (7.45).
struct [[gnu::packed]] EndOfTable {
  Header header;
};

constexpr uint64_t kPciSupported = 1 << 7;
constexpr uint8_t kVirtualMachine = 1 << 4;  // second extension byte
constexpr uint8_t kNotGiven = 0xFF;          // a BIOS or controller without a release number
constexpr uint8_t kWakeUpUnknown = 2;

/// The strings that follow a structure, numbered from 1.
class StringSet {
 public:
  /// The number of `text`; 0 for an empty one, which no string set can hold.
  Result<uint8_t> add(std::string_view what, std::string_view text) {
    if (text.empty()) return 0;
    if (text.find('\0') != text.npos) {
      return fail(Error::invalid(
          format_text("SMBIOS {} has a NUL byte, which would end it early; leave it out", what)));
    }
    for (char c : text) bytes_.push_back(static_cast<std::byte>(c));
    bytes_.push_back(std::byte{0});
    return ++count_;
  }

  /// The strings with the terminating NUL; two NULs when there are none.
  Bytes finish() && {
    if (bytes_.empty()) bytes_.push_back(std::byte{0});
    bytes_.push_back(std::byte{0});
    return std::move(bytes_);
  }

 private:
  Bytes bytes_;
  uint8_t count_ = 0;
};

class Table {
 public:
  /// Appends a structure, its header filled in, and its strings.
  template <class T>
  void add(uint8_t type, T structure, StringSet strings = {}) {
    structure.header = {.type = type, .length = sizeof(T), .handle = next_handle_++};
    auto bytes = std::as_bytes(std::span(&structure, 1));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    Bytes text = std::move(strings).finish();
    bytes_.insert(bytes_.end(), text.begin(), text.end());
  }
  const Bytes& bytes() const { return bytes_; }

 private:
  Bytes bytes_;
  uint16_t next_handle_ = 1;
};

Result<void> add_bios_information(Table& table, const SmbiosConfig& config) {
  StringSet strings;
  BiosInformation bios = {};
  bios.vendor = TRY(strings.add("bios-vendor", config.bios_vendor));
  bios.version = TRY(strings.add("bios-version", config.bios_version));
  uint64_t blocks = config.bios_size >> 16;
  bios.rom_size = static_cast<uint8_t>(std::min<uint64_t>(blocks == 0 ? 0 : blocks - 1, 0xFF));
  if (bios.rom_size == 0xFF)
    bios.extended_rom_size =
        static_cast<uint16_t>(std::min<uint64_t>(config.bios_size >> 20, 0x3FFF));
  bios.characteristics = kPciSupported;
  bios.characteristics_extension[1] = kVirtualMachine;
  bios.bios_major = bios.bios_minor = kNotGiven;
  bios.controller_major = bios.controller_minor = kNotGiven;
  table.add(0, bios, std::move(strings));
  return {};
}

Result<void> add_system_information(Table& table, const SmbiosConfig& config) {
  StringSet strings;
  SystemInformation system = {};
  system.manufacturer = TRY(strings.add("manufacturer", config.manufacturer));
  system.product_name = TRY(strings.add("product-name", config.product_name));
  system.serial_number = TRY(strings.add("serial-number", config.serial_number));
  // The first three fields of a UUID are little-endian here (7.2.1).
  constexpr std::array<uint8_t, 16> kOrder = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  for (size_t i = 0; i < kOrder.size(); ++i) system.uuid[i] = config.uuid[kOrder[i]];
  system.wake_up_type = kWakeUpUnknown;
  table.add(1, system, std::move(strings));
  return {};
}

Result<void> add_oem_strings(Table& table, const std::vector<std::string>& texts) {
  if (texts.empty()) return {};
  if (texts.size() > UINT8_MAX) {
    return fail(Error::invalid(
        format_text("{} OEM strings given; SMBIOS holds at most 255", texts.size())));
  }
  StringSet strings;
  OemStrings oem = {};
  for (size_t i = 0; i < texts.size(); ++i) {
    std::string what = format_text("OEM string {}", i + 1);
    oem.count = TRY(strings.add(what, texts[i]));
    if (oem.count == 0) {
      return fail(Error::invalid(
          format_text("SMBIOS {} is empty, which SMBIOS cannot express; leave it out", what)));
    }
  }
  table.add(11, oem, std::move(strings));
  return {};
}

EntryPoint make_entry_point(GuestAddress table, size_t table_size) {
  EntryPoint entry = {};
  std::memcpy(entry.anchor, "_SM3_", sizeof(entry.anchor));
  entry.length = sizeof(entry);
  entry.major_version = 3;
  entry.minor_version = 2;
  entry.revision = 1;
  entry.table_max_size = static_cast<uint32_t>(table_size);
  entry.table_address = table.value;
  entry.checksum = checksum_of(std::as_bytes(std::span(&entry, 1)));
  return entry;
}

}  // namespace

Result<std::vector<std::byte>> build_smbios(GuestAddress base, const SmbiosConfig& config) {
  Table table;
  TRY(add_bios_information(table, config));
  TRY(add_system_information(table, config));
  TRY(add_oem_strings(table, config.oem_strings));
  table.add(127, EndOfTable{});

  EntryPoint entry = make_entry_point(base + sizeof(EntryPoint), table.bytes().size());
  auto head = std::as_bytes(std::span(&entry, 1));
  Bytes out(head.begin(), head.end());
  out.insert(out.end(), table.bytes().begin(), table.bytes().end());
  return out;
}

Result<void> write_smbios(const GuestMemory& memory, GuestAddress base, GuestAddress end,
                          const SmbiosConfig& config) {
  std::vector<std::byte> bytes = TRY(build_smbios(base, config));
  uint64_t room = end.value - base.value;
  if (bytes.size() > room) {
    return fail(Error(std::errc::no_buffer_space,
                      format_text("the SMBIOS tables need {} bytes, but their area has {}; give "
                                  "shorter --smbios strings or fewer OEM strings",
                                  bytes.size(), room)));
  }
  return with_context(memory.write_bytes(base, bytes), "writing the SMBIOS tables");
}

}  // namespace crosvm::x86_64
