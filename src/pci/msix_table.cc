#include "pci/msix_table.h"

#include <linux/pci_regs.h>

#include <algorithm>
#include <cstring>

namespace crosvm {
namespace {

constexpr size_t kAddressLow = PCI_MSIX_ENTRY_LOWER_ADDR / 4;
constexpr size_t kAddressHigh = PCI_MSIX_ENTRY_UPPER_ADDR / 4;
constexpr size_t kData = PCI_MSIX_ENTRY_DATA / 4;
constexpr size_t kControl = PCI_MSIX_ENTRY_VECTOR_CTRL / 4;

bool good_access(uint64_t offset, size_t length, size_t size) {
  return (length == 4 || length == 8) && offset % length == 0 && offset < size &&
         size - offset >= length;
}

void copy_words(std::span<const uint32_t> words, std::span<std::byte> data) {
  std::memcpy(data.data(), words.data(), data.size());
}

}  // namespace

MsixTable::MsixTable(uint16_t vectors)
    : entries_(vectors, Entry{0, 0, 0, PCI_MSIX_ENTRY_CTRL_MASKBIT}),
      pending_((vectors + 63U) / 64 * 2) {}

MsiMessage MsixTable::message(uint16_t vector) const {
  const Entry& entry = entries_[vector];
  return {.address = entry[kAddressLow] | uint64_t{entry[kAddressHigh]} << 32,
          .data = entry[kData]};
}

bool MsixTable::masked(uint16_t vector) const {
  return (entries_[vector][kControl] & PCI_MSIX_ENTRY_CTRL_MASKBIT) != 0;
}

bool MsixTable::read(uint64_t offset, std::span<std::byte> data) const {
  if (!good_access(offset, data.size(), entries_.size() * kEntrySize)) return false;
  copy_words(std::span(entries_[offset / kEntrySize]).subspan(offset % kEntrySize / 4), data);
  return true;
}

std::optional<uint16_t> MsixTable::write(uint64_t offset, std::span<const std::byte> data) {
  if (!good_access(offset, data.size(), entries_.size() * kEntrySize)) return std::nullopt;
  Entry& entry = entries_[offset / kEntrySize];
  std::memcpy(std::span(entry).subspan(offset % kEntrySize / 4).data(), data.data(), data.size());
  entry[kControl] &= PCI_MSIX_ENTRY_CTRL_MASKBIT;  // the others are reserved
  return static_cast<uint16_t>(offset / kEntrySize);
}

bool MsixTable::read_pending(uint64_t offset, std::span<std::byte> data) const {
  if (!good_access(offset, data.size(), pending_.size() * sizeof(uint32_t))) return false;
  copy_words(std::span(pending_).subspan(offset / 4), data);
  return true;
}

void MsixTable::set_pending(uint16_t vector) { pending_[vector / 32U] |= 1U << vector % 32; }

bool MsixTable::take_pending(uint16_t vector) {
  uint32_t& word = pending_[vector / 32U];
  const uint32_t bit = 1U << vector % 32;
  const bool was_set = (word & bit) != 0;
  word &= ~bit;
  return was_set;
}

void MsixTable::clear_pending() { std::ranges::fill(pending_, 0); }

}  // namespace crosvm
