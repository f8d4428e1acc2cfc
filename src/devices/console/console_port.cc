#include "devices/console/console_port.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace crosvm {
namespace {

// What a turn of one direction costs at most.
constexpr uint64_t kTurnBytes = 64 << 10;
constexpr uint64_t kChainCost = 64;  // bytes that a chain counts for, an empty one too
constexpr size_t kChunkBytes = 16 << 10;
// With timestamps a chunk of newlines grows to 40 times its size.
constexpr size_t kStampedChunkBytes = 1024;
constexpr size_t kMostEmergencyBytes = 4096;

QueueTurns::Turn turn_after(uint64_t budget) {
  return budget > 0 ? QueueTurns::Turn::kDone : QueueTurns::Turn::kMore;
}

}  // namespace

ConsolePort::ConsolePort(EventLoop& loop, DeviceEvents& events, const ConsolePortConfig& config,
                         Ends ends, std::function<void()> host_closed)
    : host_closed_(std::move(host_closed)),
      chunk_bytes_(config.timestamp ? kStampedChunkBytes : kChunkBytes),
      receiveq_(loop, events, [this] { return serve_receiveq(); }),
      transmitq_(loop, events, [this] { return serve_transmitq(); }) {
  if (ends.output) {
    output_ =
        std::make_unique<PortOutput>(loop, std::move(ends.output),
                                     PortOutput::Options{.object = config.output.value_or("output"),
                                                         .timestamp = config.timestamp},
                                     [this] {
                                       look_at_host();
                                       transmitq_.wake();
                                     });
  }
  if (ends.input) {
    input_ = std::make_unique<PortInput>(loop, std::move(ends.input),
                                         config.input.value_or("input"), [this] {
                                           look_at_host();
                                           receiveq_.run();
                                         });
  }
}

void ConsolePort::set_guest_open(bool open) {
  guest_open_ = open;
  if (open) receiveq_.wake();
}

ConsolePort::State ConsolePort::state() const {
  State state{.guest_open = static_cast<uint8_t>(guest_open_)};
  if (!resume_) return state;
  state.resumes = 1;
  state.index = resume_->position.index;
  state.wrap_counter = static_cast<uint8_t>(resume_->position.wrap_counter);
  state.sent = resume_->sent;
  return state;
}

void ConsolePort::set_state(const State& state) {
  resume_.reset();
  if (state.resumes != 0) {
    resume_ = {.position = {.index = state.index, .wrap_counter = state.wrap_counter != 0},
               .sent = state.sent};
  }
  set_guest_open(state.guest_open != 0);
}

void ConsolePort::reset() {
  guest_open_ = false;
  resume_.reset();
}

void ConsolePort::emergency_write(std::byte byte) {
  if (output_ && output_->kept() < kMostEmergencyBytes) output_->write(std::span(&byte, 1));
}

Result<QueueTurns::Turn> ConsolePort::serve_receiveq() {
  if (!input_ || !guest_open_) return QueueTurns::Turn::kDone;
  Virtqueue& queue = receiveq_.queue();
  std::array<std::byte, 4096> bytes;
  uint64_t budget = kTurnBytes;
  while (budget > 0 && !input_->ended()) {
    auto chain = TRY(queue.pop());
    if (!chain) break;
    const ChainBuffers buffers = chain->device_writable();
    std::optional<size_t> got = 0;
    if (buffers.size() > 0) {
      got = input_->read(std::span(bytes).first(std::min(buffers.size(), bytes.size())));
      if (!got || *got == 0) {  // nothing now, or nothing more: the buffer waits in the ring
        queue.undo_pop(*std::move(chain));
        break;
      }
      TRY(buffers.write_bytes(0, std::span(bytes).first(*got)));
    }
    queue.push_used(*std::move(chain), static_cast<uint32_t>(*got));
    budget -= std::min(budget, std::max<uint64_t>(*got, kChainCost));
  }
  queue.signal_used_if_needed();
  if (input_->ended()) look_at_host();
  return turn_after(budget);
}

Result<void> ConsolePort::start_transmitq(Virtqueue queue) {
  if (resume_ && resume_->position != queue.position()) resume_.reset();
  return transmitq_.start(std::move(queue));
}

RingPosition ConsolePort::stop_transmitq() {
  if (request_) {
    Virtqueue& queue = transmitq_.queue();
    if (sent_ < request_->device_readable().size()) {
      queue.undo_pop(*std::exchange(request_, std::nullopt));
      resume_ = {.position = queue.position(), .sent = sent_};
    } else {  // what the host has not taken of it is kept by the output
      queue.push_used(*std::exchange(request_, std::nullopt), 0);
      queue.signal_used_if_needed();
    }
  }
  return transmitq_.stop();
}

Result<QueueTurns::Turn> ConsolePort::serve_transmitq() {
  uint64_t budget = kTurnBytes;
  while (budget > 0 && TRY(take_request())) {
    if (output_ && output_->kept() > 0) break;  // goes on when that is gone
    if (sent_ < request_->device_readable().size()) {
      TRY(send_some(budget));
      continue;
    }
    transmitq_.queue().push_used(*std::exchange(request_, std::nullopt), 0);
    budget -= std::min(budget, kChainCost);
  }
  transmitq_.queue().signal_used_if_needed();
  return turn_after(budget);
}

Result<bool> ConsolePort::take_request() {
  if (request_) return true;
  auto chain = TRY(transmitq_.queue().pop());
  if (!chain) return false;
  request_.emplace(*std::move(chain));
  sent_ = resume_ ? resume_->sent : 0;
  resume_.reset();
  return true;
}

Result<void> ConsolePort::send_some(uint64_t& budget) {
  const ChainBuffers buffers = request_->device_readable();
  if (!output_ || output_->gone()) {
    sent_ = buffers.size();
    return {};
  }
  const uint64_t count = std::min({buffers.size() - sent_, budget, uint64_t{chunk_bytes_}});
  std::vector<std::byte> chunk(count);
  TRY(buffers.read_bytes(sent_, chunk));
  output_->write(chunk);
  look_at_host();
  sent_ += count;
  budget -= count;
  return {};
}

/// The host's side has closed when neither direction can carry a byte any more. A port without an
/// output takes bytes for ever, to discard them; one without an input gives none.
void ConsolePort::look_at_host() {
  if (!host_open_ || !output_) return;
  if (input_ && !input_->ended()) return;
  if (!output_->look_for_hangup()) return;
  host_open_ = false;
  host_closed_();
}

}  // namespace crosvm
