#pragma once

#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "base/event_loop.h"
#include "vhost/vhost_user_server.h"
#include "virtio/rig/echo_device.h"

namespace crosvm {

/// An event loop on a thread, until its end.
class LoopThread {
 public:
  LoopThread() {
    std::promise<EventLoop*> made;
    thread_ = std::thread([&made] {
      auto loop = EventLoop::create();
      CHECK(loop.has_value());
      made.set_value(loop->get());
      CHECK((*loop)->run().has_value());
    });
    loop_ = made.get_future().get();
  }
  ~LoopThread() {
    loop_->stop();
    thread_.join();
  }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;
  EventLoop& loop() { return *loop_; }

 private:
  EventLoop* loop_ = nullptr;
  std::thread thread_;
};

/// An EchoDevice, or another one, behind a VhostUserServer, on a thread of its own.
class EchoServer {
 public:
  EchoServer(Fd socket, EchoOptions options)
      : EchoServer(std::move(socket), open_echo(std::move(options))) {}
  EchoServer(Fd socket, std::unique_ptr<OpenedDevice> opened) {
    std::promise<EventLoop*> made;
    thread_ =
        std::thread([&made, socket = std::move(socket), device = std::move(opened)]() mutable {
          auto loop = EventLoop::create();
          CHECK(loop.has_value());
          auto make = [&](DeviceEvents& events) {
            return device->create({.loop = **loop, .events = events, .rings = {}});
          };
          auto server = VhostUserServer::create(**loop, "echo", make, [](const Error&) {});
          CHECK(server.has_value());
          CHECK((*server)->serve(std::move(socket)).has_value());
          made.set_value(loop->get());
          CHECK((*loop)->run().has_value());
        });
    loop_ = made.get_future().get();
  }
  /// Nothing is in flight any more, and the connection is closed.
  ~EchoServer() {
    loop_->stop();
    thread_.join();
  }
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;

 private:
  EventLoop* loop_ = nullptr;
  std::thread thread_;
};

}  // namespace crosvm
