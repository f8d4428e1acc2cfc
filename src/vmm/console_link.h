#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "devices/console/console_config.h"
#include "platform/serial_backend.h"
#include "platform/serial_config.h"
#include "virtio/device_factory.h"
#include "vmm/device_request.h"

namespace crosvm {

struct ConsoleResources;
class InputPump;
class OutputPump;

/// Our side of a console device, of one `--serial hardware=virtio-console` or of several ports:
/// opens what each is connected with and makes the device that lives on those descriptors. Where a
/// descriptor is not enough (a terminal with its key to leave, the log, a datagram socket) a pipe
/// leads to the device, and the VMM's loop passes the bytes on.
class ConsoleLink {
 public:
  /// `number` counts the console devices from 0. Errors name the port, the cause and the fix.
  static Result<std::unique_ptr<ConsoleLink>> open(const SerialConfig& port, size_t number,
                                                   const SerialHost& host);
  /// A device with these ports, at least one, for logs called `name`. With several, each keeps its
  /// own name.
  static Result<std::unique_ptr<ConsoleLink>> open(std::span<const SerialConfig> ports,
                                                   const std::string& name, const SerialHost& host);
  /// On the loop's thread, after the device is gone: passes on the last of what it wrote.
  ~ConsoleLink();
  ConsoleLink(const ConsoleLink&) = delete;
  ConsoleLink& operator=(const ConsoleLink&) = delete;

  /// Name, configuration and PCI address of the device.
  const DeviceRequest& request() const { return request_; }
  /// The device that `request` describes, opened. Once.
  std::unique_ptr<OpenedDevice> take_device() { return std::move(device_); }
  /// Our stdin is a terminal that this port reads: enter RawTerminal, and tell its size.
  bool reads_terminal() const { return reads_terminal_; }
  /// Whether bytes go through us, rather than between the device and what it is connected with.
  bool passes_bytes() const { return !inputs_.empty() || !outputs_.empty(); }
  /// The terminal has this size now. Does nothing when the port reads none.
  void resize(ConsoleSize size);

 private:
  ConsoleLink() = default;
  Result<void> connect(SerialEnds ends, const SerialHost& host, ConsoleResources& resources);

  DeviceRequest request_;
  std::unique_ptr<OpenedDevice> device_;
  bool reads_terminal_ = false;
  Fd sizes_;  // our end of the pipe; one port at most reads the terminal
  std::vector<std::unique_ptr<InputPump>> inputs_;
  std::vector<std::unique_ptr<OutputPump>> outputs_;
};

/// The `console=` parameters of the kernel for complete serial ports, in order: "ttyS0", "hvc0"
/// (cli.md 1.7). The number of an hvc console is its place among the ports for which the guest's
/// driver makes one.
std::vector<std::string> console_parameters(std::span<const SerialConfig> ports);

}  // namespace crosvm
