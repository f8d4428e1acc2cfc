#include "cli/descriptor_purpose.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/format.h"

namespace crosvm::doctor {
namespace {

struct KnownObject {
  std::string_view begins;
  std::string_view purpose;
};
constexpr std::array kKnownObjects = {
    KnownObject{"/memfd:crosvm_guest", "guest memory"},
    KnownObject{"/memfd:crosvm_inflight", "requests in flight, for a process started anew"},
    KnownObject{"/memfd:crosvm_card",
                "what a card's driver has set up, for a process started anew"},
    KnownObject{"/memfd:crosvm-policy", "a system call policy"},
    KnownObject{"/dev/kvm", "the hypervisor"},
    KnownObject{"anon_inode:kvm-vm", "the VM"},
    KnownObject{"anon_inode:kvm-vcpu", "a vCPU"},
    KnownObject{"anon_inode:[eventpoll]", "event loop"},
    KnownObject{"anon_inode:[timerfd]", "timers of an event loop"},
    KnownObject{"anon_inode:[io_uring]", "ring for reads and writes, restricted to those"},
    KnownObject{"anon_inode:seccomp", "listener of a filter: hears of denied calls"},
    KnownObject{"/dev/net/tun", "network interface"},
    KnownObject{"/dev/null", "nothing"},
};

constexpr int kOrders = 3;  // in a device process: kWorkerChannel
constexpr std::string_view kEventfd = "anon_inode:[eventfd]";

bool watches(const ProcessFacts& process, int number) {
  return std::ranges::any_of(*process.descriptors, [number](const DescriptorFacts& each) {
    return std::ranges::find(each.watches, number) != each.watches.end();
  });
}

}  // namespace

DescriptorPurposes::DescriptorPurposes(const std::vector<ProcessFacts>& tree,
                                       std::map<uint64_t, uint64_t> peers)
    : tree_(tree), peers_(std::move(peers)) {}

bool DescriptorPurposes::is_device(const ProcessFacts& process) const {
  return process.pid != tree_.front().pid && process.parent != tree_.front().pid;
}

std::string DescriptorPurposes::role_of(const ProcessFacts& process) const {
  if (process.pid == tree_.front().pid) return "VMM";
  if (is_device(process)) return "device " + process.name;
  return process.name == "crosvm-spawner" ? "spawner" : process.name;
}

std::string DescriptorPurposes::of_process(pid_t pid) const {
  auto found = std::ranges::find(tree_, pid, &ProcessFacts::pid);
  if (found == tree_.end()) return format_text("process {}", pid);
  return format_text("the {} (pid {})", role_of(*found), pid);
}

const ProcessFacts* DescriptorPurposes::other_holder(const ProcessFacts& process,
                                                     std::string_view kind,
                                                     uint64_t identity) const {
  for (const ProcessFacts& other : tree_) {
    if (other.pid == process.pid || !other.descriptors) continue;
    for (const DescriptorFacts& theirs : *other.descriptors) {
      if (theirs.identity == identity && theirs.object.starts_with(kind)) return &other;
    }
  }
  return nullptr;
}

std::string DescriptorPurposes::of_eventfd(const ProcessFacts& process,
                                           const DescriptorFacts& descriptor) const {
  const bool watched = watches(process, descriptor.number);
  const ProcessFacts* other =
      descriptor.identity == 0 ? nullptr : other_holder(process, kEventfd, descriptor.identity);
  if (is_device(process)) {
    if (!other) return "wakes its event loop";
    return watched ? "the guest kicks a queue" : "interrupts the guest";
  }
  if (other) return "kick or interrupt of the " + role_of(*other);
  return watched ? "event of an event loop" : "interrupt or kick, which no device process has now";
}

std::string DescriptorPurposes::of_socket(const ProcessFacts& process,
                                          const DescriptorFacts& descriptor) const {
  if (const auto peer = peers_.find(descriptor.identity); peer != peers_.end()) {
    if (const ProcessFacts* other = other_holder(process, "socket", peer->second)) {
      if (is_device(process))
        return descriptor.number == kOrders ? "orders of the VMM" : "vhost-user";
      return "socket to " + of_process(other->pid);
    }
    return "socket to a process outside the VM";
  }
  if (process.pid == tree_.front().pid) return "socket without a peer, as that for control is";
  return "socket without a peer";
}

std::string DescriptorPurposes::of_standard(const ProcessFacts& process,
                                            const DescriptorFacts& descriptor) const {
  if (descriptor.number == 2) return "standard error, for its log";
  if (descriptor.object == "/dev/null" || is_device(process)) return "nothing";
  return descriptor.number == 0 ? "standard input" : "standard output";
}

std::string DescriptorPurposes::of(const ProcessFacts& process,
                                   const DescriptorFacts& descriptor) const {
  if (descriptor.number <= 2) return of_standard(process, descriptor);
  const std::string& object = descriptor.object;
  if (object == kEventfd) return of_eventfd(process, descriptor);
  if (object.starts_with("socket:")) return of_socket(process, descriptor);
  if (object == "anon_inode:[pidfd]") {
    return "hold on " + of_process(static_cast<pid_t>(descriptor.identity));
  }
  if (object.starts_with("pipe:")) {
    const ProcessFacts* other = other_holder(process, "pipe", descriptor.identity);
    return other ? "pipe shared with " + of_process(other->pid) : "pipe";
  }
  for (const KnownObject& known : kKnownObjects) {
    if (object.starts_with(known.begins)) return std::string(known.purpose);
  }
  if (is_device(process)) return "what the device serves";
  if (process.pid != tree_.front().pid) return "the program that device processes execute";
  return "a file of the VM's";
}

}  // namespace crosvm::doctor
