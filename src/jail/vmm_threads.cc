#include "jail/vmm_threads.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "base/log.h"
#include "jail/denied_call.h"

namespace crosvm {

VmmThreads::VmmThreads(EventLoop& loop, Fd vmm) : loop_(loop), vmm_(std::move(vmm)) {}

VmmThreads::~VmmThreads() {
  while (!threads_.empty()) forget(threads_.begin()->first);
}

void VmmThreads::supervise(std::string policy, std::string name, Fd listener) {
  const uint64_t number = next_++;
  Thread& thread = threads_[number];
  thread = {.policy = std::move(policy), .name = std::move(name), .listener = std::move(listener)};
  auto watched = loop_.watch(thread.listener, EPOLLIN,
                             [this, number](uint32_t events) { hear(number, events); });
  if (watched) {
    thread.watch = *watched;
  } else {
    log::error(
        "{}: denied system calls of this thread of the VMM cannot be watched for, the VM is "
        "ended: {}",
        thread.name, watched.error().what());
    kill();
  }
}

void VmmThreads::hear(uint64_t number, uint32_t events) {
  if ((events & EPOLLIN) == 0) return forget(number);  // the thread has ended
  const Thread& thread = threads_.at(number);
  auto denied = receive_denied_call(thread.listener);
  if (!denied) return;  // it was killed in the middle of one
  if (!std::exchange(denied_, true)) {
    log::error("{}: this thread of the VMM {}", thread.name,
               describe_denied_call(*denied, thread.policy, "and the VM is ended"));
  }
  kill();
}

void VmmThreads::forget(uint64_t number) {
  auto found = threads_.find(number);
  if (found->second.watch != 0) loop_.unwatch(found->second.watch);
  threads_.erase(found);
}

void VmmThreads::kill() { ::syscall(SYS_pidfd_send_signal, vmm_.get(), SIGKILL, nullptr, 0); }

}  // namespace crosvm
