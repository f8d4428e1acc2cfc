#include "devices/block/block_thread.h"

#include <system_error>
#include <utility>

#include "base/log.h"
#include "base/start_error.h"

namespace crosvm {

Result<std::unique_ptr<BlockThread>> BlockThread::create(const MakeWorker& make) {
  std::unique_ptr<BlockThread> made(new BlockThread());
  made->loop_ = TRY(EventLoop::create());
  made->worker_ = TRY(make(*made->loop_));
  try {
    made->thread_ = std::thread([loop = made->loop_.get()] {
      if (auto ran = loop->run(); !ran) log::error("a disk's worker: {}", ran.error().what());
    });
  } catch (const std::system_error& error) {  // the one way that std::thread tells it
    return fail(start_error("starting", "a disk's worker", error.code().value()));
  }
  return made;
}

BlockThread::~BlockThread() {
  if (!thread_.joinable()) return;
  loop_->stop();
  thread_.join();
}

void BlockThread::post(std::function<void(BlockWorker&)> work) {
  loop_->post([worker = worker_.get(), work = std::move(work)] { work(*worker); });
}

}  // namespace crosvm
