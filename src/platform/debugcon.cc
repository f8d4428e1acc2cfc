#include "platform/debugcon.h"

#include "base/log.h"

namespace crosvm {

void Debugcon::read(uint64_t, std::span<std::byte> data) {
  if (data.size() == 1) data[0] = std::byte{0xe9};
}

void Debugcon::write(uint64_t, std::span<const std::byte> data) {
  if (data.size() != 1) return;
  auto written = output_->write(data);
  if (!written && !output_failed_ && written.error().code() != std::errc::operation_canceled) {
    log::error("debugcon output is lost: {}", written.error().what());  // once, not for every byte
  }
  output_failed_ = !written;
}

}  // namespace crosvm
