#pragma once

#include <cstddef>
#include <optional>

#include "base/fd.h"
#include "base/result.h"
#include "virtio/device_state.h"

namespace crosvm {

/// What a card's driver has set up by the control queue, where it outlives the card's process: the
/// one that takes its place goes on with it, as no driver says it twice unasked. It is right
/// whichever instruction the process dies at.
class NetMemory {
 public:
  /// The file of it, empty. Errors: those of memfd_create.
  static Result<Fd> create();
  /// Errors: invalid_argument for another file, or the errno of mmap.
  static Result<NetMemory> map(const Fd& file);
  NetMemory(NetMemory&& other) noexcept;
  NetMemory& operator=(NetMemory&&) = delete;
  ~NetMemory();

  void store(const DeviceState& state);
  /// What was stored last; nothing: there is none, or the process before has damaged it.
  std::optional<DeviceState> load() const;

 private:
  explicit NetMemory(std::byte* start) : start_(start) {}
  std::byte* start_;
};

}  // namespace crosvm
