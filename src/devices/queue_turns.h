#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "base/event_loop.h"
#include "base/result.h"
#include "virtio/virtio_device.h"
#include "virtio/virtqueue.h"

namespace crosvm {

/// One queue of a device, served in turns: a turn does a bounded amount of work and says whether
/// there is more, which is then done after the loop has looked at everything else. So no request,
/// however large, keeps the device's other queues waiting. All calls on the loop.
class QueueTurns {
 public:
  enum class Turn { kDone, kMore };

  /// `serve` is one turn; an error means that the ring is broken, and the device needs a reset.
  /// `loop` and `events` outlive this object.
  QueueTurns(EventLoop& loop, DeviceEvents& events, std::function<Result<Turn>()> serve);
  ~QueueTurns();
  QueueTurns(const QueueTurns&) = delete;
  QueueTurns& operator=(const QueueTurns&) = delete;

  /// Takes the queue and listens to it. Errors: those of Virtqueue::listen.
  Result<void> start(Virtqueue queue);
  /// Lets go of the queue, of which nothing may be in flight; says where to resume.
  RingPosition stop();

  bool running() const { return queue_.has_value(); }
  /// The queue, which runs.
  Virtqueue& queue() { return *queue_; }
  /// A turn at once. Nothing happens when the queue does not run or is broken.
  void run();
  /// A turn soon.
  void wake();

 private:
  struct Token {
    QueueTurns* owner;  // null once it is gone
  };
  Result<void> turn();
  void broken(const Error& error);

  EventLoop& loop_;
  DeviceEvents& events_;
  std::function<Result<Turn>()> serve_;
  std::shared_ptr<Token> token_;
  std::optional<Virtqueue> queue_;
  bool broken_ = false;
  bool woken_ = false;  // a turn has been posted
};

}  // namespace crosvm
