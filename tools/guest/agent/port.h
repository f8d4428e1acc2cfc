#pragma once

#include <string>
#include <string_view>

#include "base/fd.h"

namespace crosvm::agent {

/// Finds a virtio port by its name and waits for it to appear, without udev.
class PortFinder {
 public:
  /// `ports` is the class's folder in sysfs, `devices` where the nodes are.
  explicit PortFinder(std::string name, std::string ports = "/sys/class/virtio-ports",
                      std::string devices = "/dev");

  /// The port, open for reading and writing; nothing where there is none or somebody has it open.
  Fd open() const;
  /// Returns when the kernel's devices have changed, or after a while.
  void wait_for_change() const;

 private:
  std::string name_;
  std::string ports_;
  std::string devices_;
  Fd events_;
};

}  // namespace crosvm::agent
