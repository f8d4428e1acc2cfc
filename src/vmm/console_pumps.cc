#include "vmm/console_pumps.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/log.h"

namespace crosvm {

namespace {
constexpr size_t kPumpBytes = 4096;
}

InputPump::InputPump(EventLoop& loop, std::unique_ptr<SerialInput> input, Fd pipe)
    : loop_(loop), pipe_(std::move(pipe)), input_(std::move(input)) {
  input_->start(*this);
}

InputPump::~InputPump() {
  if (watch_ != 0) loop_.unwatch(watch_);
}

size_t InputPump::room() { return held_.empty() ? kPumpBytes : 0; }

void InputPump::receive(std::span<const std::byte> bytes) {
  held_.insert(held_.end(), bytes.begin(), bytes.end());
  flush();
}

void InputPump::flush() {
  while (!held_.empty()) {
    const ssize_t put = ::write(pipe_.get(), held_.data(), held_.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN) return wait_until_writable();
    if (put < 0) return held_.clear();  // the device is gone: nobody is left to read it
    held_.erase(held_.begin(), held_.begin() + put);
  }
}

void InputPump::wait_until_writable() {
  if (watch_ != 0) return;
  auto watching = loop_.watch(pipe_, EPOLLOUT, [this](uint32_t) {
    loop_.unwatch(std::exchange(watch_, 0));
    flush();
    if (held_.empty()) input_->room_available();
  });
  if (watching) {
    watch_ = *watching;
  } else {
    log::error("console input is lost: {}", watching.error().what());
    held_.clear();
  }
}

OutputPump::OutputPump(EventLoop& loop, Fd pipe, std::unique_ptr<SerialOutput> output)
    : loop_(loop), pipe_(std::move(pipe)), output_(std::move(output)) {}

Result<std::unique_ptr<OutputPump>> OutputPump::create(EventLoop& loop, Fd pipe,
                                                       std::unique_ptr<SerialOutput> output) {
  std::unique_ptr<OutputPump> self(new OutputPump(loop, std::move(pipe), std::move(output)));
  OutputPump* raw = self.get();
  self->watch_ = TRY(loop.watch(raw->pipe_, EPOLLIN, [raw](uint32_t) {
    if (!raw->take()) raw->stop();  // ready with nothing in it: the device has closed its end
  }));
  return self;
}

OutputPump::~OutputPump() {
  while (take()) {
  }
  stop();
}

bool OutputPump::take() {
  std::array<std::byte, kPumpBytes> bytes;
  const ssize_t got = ::read(pipe_.get(), bytes.data(), bytes.size());
  if (got <= 0) return got < 0 && errno == EINTR;
  auto written = output_->write(std::span(bytes).first(static_cast<size_t>(got)));
  if (!written && !std::exchange(failed_, true)) {
    log::error("console output is lost: {}", written.error().what());
  }
  if (written) failed_ = false;
  return true;
}

void OutputPump::stop() {
  if (watch_ != 0) loop_.unwatch(std::exchange(watch_, 0));
}

}  // namespace crosvm
