#include "virtio/virtio_pci_notify.h"

#include <utility>

#include "base/log.h"
#include "base/shared_eventfd.h"
#include "virtio/virtio_pci_layout.h"

namespace crosvm::virtio_pci {
namespace {

// Any length: drivers write the queue's index as 16 bits, others do 32.
IoEvent notify_event(uint64_t address) {
  return {.space = IoEvent::Space::kMmio, .address = address, .length = 0, .datamatch = {}};
}

}  // namespace

Notifications::Notifications(Vm& vm, std::string label)
    : vm_(&vm),
      label_(std::move(label)),
      failures_(std::make_unique<LogLimit>("ioeventfds that could not be had")) {}

Result<Notifications> Notifications::create(Vm& vm, std::string label, size_t queues) {
  Notifications made(vm, std::move(label));
  for (size_t i = 0; i < queues; ++i) {
    made.queues_.push_back({.kick = TRY(make_eventfd()), .live = false, .registered = {}});
  }
  return made;
}

Notifications::~Notifications() { set_bar_address({}); }

bool Notifications::signal(uint64_t offset) const {
  const uint64_t index = offset / kNotifyMultiplier;
  if (offset % kNotifyMultiplier != 0 || index >= queues_.size()) return false;
  signal_shared_eventfd(queues_[index].kick);  // a vCPU waits for no device process
  return true;
}

void Notifications::set_bar_address(std::optional<uint64_t> address) {
  bar_address_ = address;
  for (size_t i = 0; i < queues_.size(); ++i) follow(static_cast<uint16_t>(i));
}

void Notifications::set_live(uint16_t index, bool live) {
  queues_[index].live = live;
  follow(index);
}

void Notifications::set_all_dead() {
  for (size_t i = 0; i < queues_.size(); ++i) set_live(static_cast<uint16_t>(i), false);
}

void Notifications::follow(uint16_t index) {
  Queue& queue = queues_[index];
  std::optional<uint64_t> wanted;
  if (queue.live && bar_address_) {
    wanted = *bar_address_ + kNotify.offset + uint64_t{kNotifyMultiplier} * index;
  }
  if (queue.registered == wanted) return;
  if (queue.registered) {
    Result<void> gone = vm_->unregister_ioevent(notify_event(*queue.registered), queue.kick);
    if (!gone && failures_->allows()) {
      log::warn("{}: queue {}: {}", label_, index, gone.error().what());
    }
    queue.registered.reset();
  }
  if (!wanted) return;
  Result<void> placed = vm_->register_ioevent(notify_event(*wanted), queue.kick);
  if (placed) {
    queue.registered = wanted;
  } else if (failures_->allows()) {
    log::warn("{}: notifications of queue {} take the slow way: {}", label_, index,
              placed.error().what());
  }
}

}  // namespace crosvm::virtio_pci
