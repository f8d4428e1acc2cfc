#pragma once

#include "hypervisor/hypervisor.h"
#include "platform/bus.h"

namespace crosvm {

/// The two address spaces a vCPU can reach beside RAM.
class GuestIo : public IoHandler {
 public:
  Bus& ports() { return ports_; }
  Bus& mmio() { return mmio_; }

  void port_read(uint16_t port, std::span<std::byte> data) override { ports_.read(port, data); }
  void port_write(uint16_t port, std::span<const std::byte> data) override {
    ports_.write(port, data);
  }
  void mmio_read(GuestAddress address, std::span<std::byte> data) override {
    mmio_.read(address.value, data);
  }
  void mmio_write(GuestAddress address, std::span<const std::byte> data) override {
    mmio_.write(address.value, data);
  }

 private:
  Bus ports_{"I/O ports"};
  Bus mmio_{"MMIO"};
};

}  // namespace crosvm
