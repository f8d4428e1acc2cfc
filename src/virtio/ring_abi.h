#pragma once

/// Flags and feature bits of rings. The kernel's header has a part for old rings that is no C++.
#ifndef VIRTIO_RING_NO_LEGACY
#define VIRTIO_RING_NO_LEGACY
#endif
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
