#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

/// A writer of ACPI Machine Language (ACPI 6.3, chapter 20). Each function returns the encoding of
/// one term, built from the terms it is given:
///
///   aml::device("PC00", {aml::name("_HID", aml::eisa_id("PNP0A08"))})
///
/// What can be wrong here is our own mistake (a name of five letters, an EISA id that is none) and
/// aborts.
namespace crosvm::x86_64::aml {

/// Encoded AML.
using Term = std::vector<std::byte>;
using Terms = std::vector<Term>;

/// The terms one after the other.
Term concatenate(const Terms& terms);

// Data (20.2.3).

/// The shortest encoding: ZeroOp, OneOp or a byte, word, dword or qword.
Term integer(uint64_t value);
Term buffer(std::span<const std::byte> bytes);
Term package(const Terms& elements);
/// "PNP0A08": three capitals and four hex digits, compressed to a dword (19.3.4).
Term eisa_id(std::string_view id);
/// "33DB4D5B-1FF7-401C-9657-7441C03DD766" as a buffer of 16 bytes, mixed-endian as ToUUID has it.
Term uuid(std::string_view text);

// Names and objects (20.2.2, 20.2.5). A path is like "\\_SB_.PC00", "^X" or "_ADR"; a segment
// shorter than four letters is filled with '_'.

/// A reference to a named object.
Term path(std::string_view path);
Term name(std::string_view path, const Term& value);
Term scope(std::string_view path, const Terms& body);
Term device(std::string_view path, const Terms& body);

enum class Serialized : bool { kNo, kYes };
/// `arguments` 0 to 7. A method that creates named objects must be serialized.
Term method(std::string_view path, uint8_t arguments, Serialized serialized, const Terms& body);

// Statements and expressions (20.2.5.3, 20.2.5.4).

/// Arg0 to Arg6.
Term arg(uint8_t index);
Term if_true(const Term& condition, const Terms& body);
/// Directly after an `if_true`.
Term otherwise(const Terms& body);
Term equal(const Term& left, const Term& right);
Term store(const Term& value, const Term& target);
Term bit_and(const Term& left, const Term& right, const Term& target);
Term bit_or(const Term& left, const Term& right, const Term& target);
Term return_value(const Term& value);
/// A field `path` of 32 bits at `byte_offset` of the buffer `source`.
Term create_dword_field(const Term& source, uint64_t byte_offset, std::string_view path);

// Resource descriptors (6.4), to be put in a resource_template.

/// The buffer with an end tag.
Term resource_template(const Terms& descriptors);
/// Ports [base, base + length), 16-bit decode.
Term io_ports(uint16_t base, uint8_t length);
Term memory32_fixed(uint32_t base, uint32_t length);
/// Buses [first, last], produced by a bridge.
Term bus_numbers(uint16_t first, uint16_t last);
/// Non-cacheable read-write memory [base, base + length) produced by a bridge: a DWord descriptor
/// where it ends within 4 GiB, a QWord descriptor otherwise. `length` is not 0.
Term memory_window(uint64_t base, uint64_t length);

}  // namespace crosvm::x86_64::aml
