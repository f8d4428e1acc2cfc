#include "devices/net/net_pair.h"

#include <system_error>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/start_error.h"

namespace crosvm {

NetPair::NetPair(EventLoop& loop, DeviceEvents& events, std::unique_ptr<NetPort> port,
                 std::function<void(bool up)> link_changed)
    : port_(std::move(port)), receiver_(loop, events, *port_), sender_(loop, events, *port_) {
  port_->begin({.receivable = [this] { receiver_.receivable(); },
                .sendable = [this] { sender_.sendable(); },
                .link_changed = std::move(link_changed)});
}

Result<void> NetPair::start(bool transmit, Virtqueue queue, uint64_t features) {
  if (transmit) return sender_.start(std::move(queue), features);
  return receiver_.start(std::move(queue), features);
}

RingPosition NetPair::stop(bool transmit) { return transmit ? sender_.stop() : receiver_.stop(); }

/// What the pair's queues say goes to the device's own loop.
struct NetThread::State : DeviceEvents {
  explicit State(Events to) : events(std::move(to)) {}
  void config_changed() override {}
  void needs_reset(std::string why) override { events.broken(std::move(why)); }

  Events events;
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<NetPair> pair;
  std::thread thread;
};

NetThread::NetThread(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<NetThread>> NetThread::create(const MakePort& make_port, Events events) {
  auto state = std::make_unique<State>(std::move(events));
  state->loop = TRY(EventLoop::create());
  auto port = TRY(make_port(*state->loop));
  state->pair =
      std::make_unique<NetPair>(*state->loop, *state, std::move(port), state->events.link_changed);
  std::unique_ptr<NetThread> made(new NetThread(std::move(state)));
  try {
    made->state_->thread = std::thread([loop = made->state_->loop.get()] {
      if (auto ran = loop->run(); !ran) log::error("a card's thread: {}", ran.error().what());
    });
  } catch (const std::system_error& error) {  // the one way that std::thread tells it
    return fail(start_error("starting", "a card's thread", error.code().value()));
  }
  return made;
}

NetThread::~NetThread() {
  if (!state_->thread.joinable()) return;
  state_->loop->stop();
  state_->thread.join();
}

void NetThread::post(std::function<void(NetPair&)> work) {
  state_->loop->post([pair = state_->pair.get(), work = std::move(work)] { work(*pair); });
}

}  // namespace crosvm
