#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace crosvm {

/// What a front-end must know of a type of device because its back-end need not say it.
struct VhostUserType {
  uint32_t device_type = 0;  ///< device ID, virtio 1.3 §5
  /// Queues without MQ (devices.md 10.5).
  uint16_t least_queues = 1;
  /// The device configuration's lengths in bytes through the versions of virtio, the one to try
  /// first first; empty: it has none.
  std::vector<size_t> config_lengths;
};

/// A type that is not in the table has one queue and no configuration.
VhostUserType vhost_user_type(uint32_t device_type);

/// Features of that type which a driver is offered only of a back-end with PROTOCOL_F_CONFIG. A
/// network back-end without it has its front-end show the configuration and serve the control
/// queue.
uint64_t vhost_user_features_with_config(uint32_t device_type);

/// How many queues a back-end has that answered GET_QUEUE_NUM with `told` (0: it was not asked) and
/// offers `features`: a network back-end counts pairs, and its control queue comes on top.
uint64_t vhost_user_queue_count(const VhostUserType& type, uint64_t told, uint64_t features);
/// The answer to GET_QUEUE_NUM of a back-end with that many queues, the other way around.
uint64_t vhost_user_told_queues(uint32_t device_type, uint64_t queues);

}  // namespace crosvm
