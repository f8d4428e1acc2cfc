#include "pci/interrupt_relay.h"

#include <pthread.h>

#include <atomic>
#include <csignal>
#include <future>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/start_error.h"

namespace crosvm {
namespace {

/// Signals are for the threads that expect them: handlers interrupt system calls.
void block_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

}  // namespace

struct InterruptRelay::State {
  /// One watch. `alive` is all that other threads touch; the rest belongs to the loop.
  struct Watch {
    std::atomic<bool> alive = true;
    std::function<void()> fired;
    EventLoop::WatchId in_loop = 0;
  };

  std::unique_ptr<EventLoop> loop;
  std::mutex mutex;
  WatchId next = 1;                                   // guarded by mutex
  std::map<WatchId, std::shared_ptr<Watch>> watches;  // guarded by mutex
  std::thread thread;

  void run();
  void begin(const Fd& fd, const std::shared_ptr<Watch>& watch) const;
};

void InterruptRelay::State::run() {
  block_signals();
  ::pthread_setname_np(::pthread_self(), "irq_relay");
  CHECK(loop->run().has_value());  // epoll refuses to wait only for what is no epoll descriptor
}

void InterruptRelay::State::begin(const Fd& fd, const std::shared_ptr<Watch>& watch) const {
  if (!watch->alive) return;
  Result<EventLoop::WatchId> added = loop->watch(fd, EPOLLIN, [watch](uint32_t) {
    // Not drained when dead: what is there belongs to whoever listens next.
    if (watch->alive) watch->fired();
  });
  if (added) {
    watch->in_loop = *added;
  } else {
    log::error("an interrupt is not relayed: {}", added.error().what());
  }
}

InterruptRelay::InterruptRelay(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<InterruptRelay>> InterruptRelay::create() {
  auto state = std::make_unique<State>();
  state->loop = TRY(EventLoop::create());
  try {  // std::thread has no other way to say that the system refused
    state->thread = std::thread([raw = state.get()] { raw->run(); });
  } catch (const std::system_error& refused) {
    return fail(start_error("starting a thread for", "interrupts", refused.code().value()));
  }
  return std::unique_ptr<InterruptRelay>(new InterruptRelay(std::move(state)));
}

InterruptRelay::~InterruptRelay() {
  state_->loop->stop();
  state_->thread.join();
  CHECK(state_->watches.empty());
}

void InterruptRelay::call(const std::function<void()>& work) {
  std::promise<void> done;
  std::future<void> waiting = done.get_future();
  state_->loop->post([&] {
    work();
    done.set_value();
  });
  waiting.wait();
}

InterruptRelay::WatchId InterruptRelay::watch(const Fd& fd, std::function<void()> fired) {
  auto watch = std::make_shared<State::Watch>();
  watch->fired = std::move(fired);
  // Posted under the lock, so that the loop sees watches and unwatches of one descriptor in order.
  std::lock_guard lock(state_->mutex);
  WatchId id = state_->next++;
  state_->watches.emplace(id, watch);
  state_->loop->post([state = state_.get(), &fd, watch] { state->begin(fd, watch); });
  return id;
}

void InterruptRelay::unwatch(WatchId id) {
  std::lock_guard lock(state_->mutex);
  auto found = state_->watches.find(id);
  if (found == state_->watches.end()) return;
  std::shared_ptr<State::Watch> watch = std::move(found->second);
  state_->watches.erase(found);
  watch->alive = false;
  state_->loop->post([state = state_.get(), watch] { state->loop->unwatch(watch->in_loop); });
}

void InterruptRelay::forget(WatchId id) {
  CHECK(std::this_thread::get_id() != state_->thread.get_id());
  unwatch(id);
  // The loop runs one callback at a time and what is posted in order.
  auto settled = std::make_shared<std::promise<void>>();
  std::future<void> waiting = settled->get_future();
  state_->loop->post([settled] { settled->set_value(); });
  waiting.wait();
}

}  // namespace crosvm
