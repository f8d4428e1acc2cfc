#include "devices/queue_turns.h"

#include <utility>

namespace crosvm {

QueueTurns::QueueTurns(EventLoop& loop, DeviceEvents& events, std::function<Result<Turn>()> serve)
    : loop_(loop),
      events_(events),
      serve_(std::move(serve)),
      token_(std::make_shared<Token>(Token{this})) {}

QueueTurns::~QueueTurns() { token_->owner = nullptr; }

Result<void> QueueTurns::start(Virtqueue queue) {
  CHECK(!queue_);
  queue_.emplace(std::move(queue));
  broken_ = false;
  auto listening = queue_->listen(
      loop_, [this] { return turn(); }, [this](const Error& error) { broken(error); });
  if (!listening) queue_.reset();
  return listening;
}

RingPosition QueueTurns::stop() {
  CHECK(queue_);
  queue_->unlisten();
  const RingPosition position = queue_->position();
  queue_.reset();
  return position;
}

Result<void> QueueTurns::turn() {
  if (broken_) return {};
  if (TRY(serve_()) == Turn::kMore) wake();
  return {};
}

void QueueTurns::run() {
  if (!queue_ || broken_) return;
  auto served = turn();
  if (served) return;
  queue_->unlisten();
  broken(served.error());
}

void QueueTurns::wake() {
  if (std::exchange(woken_, true)) return;
  loop_.post([token = token_] {
    if (token->owner == nullptr) return;
    token->owner->woken_ = false;
    token->owner->run();
  });
}

void QueueTurns::broken(const Error& error) {
  broken_ = true;
  events_.needs_reset(error.what());
}

}  // namespace crosvm
