#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "arch/x86_64/kernel_image.h"

/// Feeding bytes to the kernel loaders.
namespace crosvm::fuzz {

/// 64 MiB of guest RAM, made once.
inline const GuestMemory& guest_memory() {
  static const GuestMemory memory = [] {
    const RamRange ram[] = {{GuestAddress{0}, 64 << 20}};
    auto created = GuestMemory::create(ram, {});
    CHECK(created.has_value());
    return *std::move(created);
  }();
  return memory;
}

/// Loads `bytes`, with `magic` put at `magic_offset` so that the fuzzer need not find it. What is
/// accepted must lie in RAM.
inline void load_as_kernel(std::span<const uint8_t> bytes, std::string_view magic,
                           size_t magic_offset, KernelEntry entry) {
  std::vector<uint8_t> file(bytes.begin(), bytes.end());
  if (file.size() >= magic_offset + magic.size()) {
    std::memcpy(file.data() + magic_offset, magic.data(), magic.size());
  }
  const Fd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  CHECK(fd);
  CHECK(write_full(fd, std::as_bytes(std::span(file)), "fuzz").has_value());
  const auto image = x86_64::load_kernel(guest_memory(), {.fd = fd, .name = "fuzz"}, entry);
  if (!image) return;
  CHECK(image->memory.contains(image->entry));
  CHECK(guest_memory().slice(image->memory.start, image->memory.size).has_value());
}

}  // namespace crosvm::fuzz
