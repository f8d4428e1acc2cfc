#include "pci/pvpanic.h"

namespace crosvm {
namespace {

constexpr std::byte kPanicked{1 << 0};
constexpr std::byte kCrashKernelLoaded{1 << 1};
constexpr uint64_t kBarBytes = 16;

}  // namespace

Pvpanic::Pvpanic(std::function<void(PanicCode)> report)
    : config_({.vendor = 0x1b36,
               .device = 0x0011,
               .revision = 1,
               .class_code = 0xff,
               .subclass = 0xff,
               .subsystem_vendor = 0x00ff,
               .subsystem = 0x00ff}),
      report_(std::move(report)) {
  CHECK(config_.add_bar(0, {.kind = PciBar::Kind::kMemory32, .size = kBarBytes}).has_value());
}

void Pvpanic::read_bar(size_t, uint64_t offset, std::span<std::byte> data) {
  if (offset == 0 && data.size() == 1) data[0] = kPanicked | kCrashKernelLoaded;
}

void Pvpanic::write_bar(size_t, uint64_t offset, std::span<const std::byte> data) {
  if (offset != 0 || data.size() != 1) return;
  PanicCode code = PanicCode::kUnknown;
  if (data[0] == kPanicked) code = PanicCode::kPanicked;
  if (data[0] == kCrashKernelLoaded) code = PanicCode::kCrashKernelLoaded;
  report_(code);
}

}  // namespace crosvm
