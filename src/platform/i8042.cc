#include "platform/i8042.h"

namespace crosvm {
namespace {

constexpr uint64_t kSpeakerPort = 0x61;
constexpr uint64_t kCommandPort = 0x64;
constexpr std::byte kRefreshToggle{0x20};  // timer 2's output: a delay loop that waits for it ends
constexpr std::byte kPulseReset{0xfe};

}  // namespace

void I8042::read(uint64_t offset, std::span<std::byte> data) {
  if (data.size() == 1 && base_ + offset == kSpeakerPort) data[0] = kRefreshToggle;
}

void I8042::write(uint64_t offset, std::span<const std::byte> data) {
  if (data.size() == 1 && base_ + offset == kCommandPort && data[0] == kPulseReset) reset_();
}

}  // namespace crosvm
