#include "virtio/virtqueue.h"

#include <bit>
#include <utility>

#include "base/format.h"
#include "virtio/packed_ring.h"
#include "virtio/ring.h"
#include "virtio/split_ring.h"

namespace crosvm {
namespace {

// Arrays of slices kept for the next chains, so that popping allocates nothing; long ones go, lest
// a driver fills our memory with them.
constexpr size_t kSpareArrays = 64;
constexpr size_t kSpareSlices = 32;

/// One part of a ring: where it is and what the specification asks of it.
struct Part {
  std::string_view name;
  GuestAddress address;
  uint64_t bytes;
  uint64_t alignment;
};

Result<GuestSlice> open_part(const GuestMemory& memory, const Part& part) {
  if (part.address.value % part.alignment != 0) {
    return fail(Error::invalid(format_text("the {} at {:#x} is not aligned to {} bytes", part.name,
                                           part.address.value, part.alignment)));
  }
  return with_context(memory.slice(part.address, part.bytes), format_text("the {}", part.name));
}

/// Where the ring notes its writes; `bytes` are those of the device area. Errors: the log is too
/// small, also for the buffers that may come.
Result<RingDirtyLog> dirty_log_of(const GuestMemory& memory, const VirtqueueSetup& setup,
                                  uint64_t bytes) {
  if (!setup.dirty) return RingDirtyLog();
  const auto too_small = [&](const char* what, GuestAddress at) {
    return fail(
        Error::invalid(format_text("the log of dirty pages of {} bytes is too small for {}"
                                   " at {:#x}",
                                   setup.dirty->size(), what, at.value)));
  };
  if (!setup.dirty->covers({}, memory.end().value)) return too_small("RAM that ends", memory.end());
  if (!setup.device_area_log) return RingDirtyLog();
  if (!setup.dirty->covers(*setup.device_area_log, bytes)) {
    return too_small("the device area", *setup.device_area_log);
  }
  return RingDirtyLog{setup.dirty, setup.addresses.descriptor_area, *setup.device_area_log};
}

/// Where the ring starts, with what an earlier process left in flight.
Result<RingStart> start_of(const VirtqueueSetup& setup, const RingAreas& areas, bool packed) {
  if (!setup.inflight) return RingStart{setup.position, setup.position, {}, nullptr, {}};
  const InflightLog::Ring ring{
      .packed = packed,
      .size = setup.size,
      .base = setup.position,
      .used_idx = packed ? uint16_t{0} : areas.device.load_acquire<uint16_t>(SplitRing::kUsedIdx),
      .descriptor_area = areas.descriptor};
  auto standing = TRY(with_context(setup.inflight->open(ring), "its log of requests in flight"));
  RingStart start{standing.used, standing.used, std::move(standing.requests), setup.inflight, {}};
  for (const InflightLog::Request& request : start.replay) {
    if (packed) {
      const auto elements = static_cast<uint16_t>(request.elements.size());
      start.available = PackedRing::advanced(start.available, elements, setup.size);
    } else {
      ++start.available.index;
    }
  }
  return start;
}

Result<std::unique_ptr<Ring>> make_split(const GuestMemory& memory, const VirtqueueSetup& setup) {
  const uint16_t size = setup.size;
  const VringAddresses& at = setup.addresses;
  if (!std::has_single_bit(size)) {
    return fail(Error::invalid(format_text("its size {} is no power of two", size)));
  }
  const RingAreas areas{
      .descriptor = TRY(open_part(
          memory, {"descriptor table", at.descriptor_area, SplitRing::descriptor_bytes(size), 16})),
      .driver =
          TRY(open_part(memory, {"avail ring", at.driver_area, SplitRing::driver_bytes(size), 2})),
      .device =
          TRY(open_part(memory, {"used ring", at.device_area, SplitRing::device_bytes(size), 4}))};
  RingStart start = TRY(start_of(setup, areas, false));
  start.dirty = TRY(dirty_log_of(memory, setup, SplitRing::device_bytes(size)));
  return std::make_unique<SplitRing>(memory, areas, size, setup.features, std::move(start));
}

Result<std::unique_ptr<Ring>> make_packed(const GuestMemory& memory, const VirtqueueSetup& setup) {
  const uint16_t size = setup.size;
  const VringAddresses& at = setup.addresses;
  if (setup.position.index >= size) {
    return fail(Error::invalid(
        format_text("position {} in a ring of {} elements", setup.position.index, size)));
  }
  const RingAreas areas{
      .descriptor = TRY(open_part(
          memory, {"descriptor ring", at.descriptor_area, PackedRing::descriptor_bytes(size), 16})),
      .driver = TRY(open_part(
          memory, {"driver event suppression", at.driver_area, PackedRing::kEventBytes, 4})),
      .device = TRY(open_part(
          memory, {"device event suppression", at.device_area, PackedRing::kEventBytes, 4}))};
  RingStart start = TRY(start_of(setup, areas, true));
  start.dirty = TRY(dirty_log_of(memory, setup, PackedRing::kEventBytes));
  return std::make_unique<PackedRing>(memory, areas, size, setup.features, std::move(start));
}

Result<std::unique_ptr<Ring>> make_ring(const GuestMemory& memory, const VirtqueueSetup& setup) {
  if (setup.size == 0 || setup.size > kMaxQueueSize) {
    return fail(Error::invalid(format_text("its size is {}", setup.size)));
  }
  const bool packed = (setup.features >> VIRTIO_F_RING_PACKED & 1) != 0;
  return packed ? make_packed(memory, setup) : make_split(memory, setup);
}

/// What `listen` leaves with the loop. The queue may go away inside `process`, so this is shared
/// with the callbacks, and `queue` is null once nobody listens.
struct Listening {
  EventLoop* loop = nullptr;
  EventLoop::WatchId watch = 0;
  std::function<Result<void>()> process;
  std::function<void(Error)> broken;
};

}  // namespace

struct Virtqueue::State {
  std::unique_ptr<Ring> ring;
  const GuestMemory* memory = nullptr;
  std::shared_ptr<DirtyLog> dirty;  // or null
  uint16_t index = 0;
  uint16_t size = 0;
  Fd kick;
  Fd call;
  uint16_t in_flight = 0;
  bool broken = false;
  bool logged = false;  // requests in flight are remembered
  std::vector<std::vector<GuestSlice>> spare;

  std::shared_ptr<Listening> listening;
  bool processing = false;
  uint32_t budget = 0;  // chains that this call of `process` may still pop

  Error about(Error error) const {
    return std::move(error).context(format_text("queue {}", index));
  }
  Result<bool> take(DescriptorChain& chain);
  void mark_dirty(const DescriptorChain& chain) const;
  void keep(std::vector<GuestSlice> slices);
  void give_up(const std::shared_ptr<Listening>& mine, Error error);
  void stop_listening();
  static void run(State* state, const std::shared_ptr<Listening>& mine);
  static void run_soon(State* state, const std::shared_ptr<Listening>& mine);
};

Result<Virtqueue> Virtqueue::create(const GuestMemory& memory, VirtqueueSetup setup) {
  auto state = std::make_unique<State>();
  state->logged = setup.inflight != nullptr;
  state->ring = TRY(with_context(make_ring(memory, setup), format_text("queue {}", setup.index)));
  state->memory = &memory;
  state->dirty = std::move(setup.dirty);
  state->index = setup.index;
  state->size = setup.size;
  state->kick = std::move(setup.kick);
  state->call = std::move(setup.call);
  return Virtqueue(std::move(state));
}

Virtqueue::Virtqueue(std::unique_ptr<State> state) : state_(std::move(state)) {}
Virtqueue::Virtqueue(Virtqueue&&) noexcept = default;

Virtqueue& Virtqueue::operator=(Virtqueue&& other) noexcept {
  Virtqueue old(std::move(*this));
  state_ = std::move(other.state_);
  return *this;
}

Virtqueue::~Virtqueue() {
  if (state_) state_->stop_listening();
}

uint16_t Virtqueue::index() const { return state_->index; }
uint16_t Virtqueue::size() const { return state_->size; }
uint16_t Virtqueue::in_flight() const { return state_->in_flight; }
RingPosition Virtqueue::position() const { return state_->ring->position(); }

Result<bool> Virtqueue::State::take(DescriptorChain& chain) {
  if (broken) return fail(about(Error::invalid("is broken and was popped again")));
  if (!spare.empty()) {
    chain.slices_ = std::move(spare.back());
    spare.pop_back();
  }
  auto popped = ring->pop(chain);
  if (!popped) {
    broken = true;
    return fail(about(std::move(popped).error()));
  }
  if (!*popped) keep(std::move(chain.slices_));
  return popped;
}

void Virtqueue::State::keep(std::vector<GuestSlice> slices) {
  if (spare.size() == kSpareArrays || slices.capacity() > kSpareSlices) return;
  slices.clear();
  spare.push_back(std::move(slices));
}

Result<std::optional<DescriptorChain>> Virtqueue::pop() {
  if (state_->processing && state_->budget == 0) return std::nullopt;
  std::optional<DescriptorChain> chain{DescriptorChain()};
  if (!TRY(state_->take(*chain))) return std::nullopt;
  ++state_->in_flight;
  if (state_->processing) --state_->budget;
  return chain;
}

void Virtqueue::undo_pop(DescriptorChain chain) {
  state_->ring->undo_pop(chain);
  --state_->in_flight;
  state_->keep(std::move(chain.slices_));
}

void Virtqueue::State::mark_dirty(const DescriptorChain& chain) const {
  // All of it: a device may have written behind what it says, such as the part of a read that
  // failed. A page too many is copied in vain, one too few is lost.
  for (const GuestSlice& slice : chain.device_writable().slices()) {
    if (slice.size() > 0) dirty->mark(memory->address_of(slice), slice.size());
  }
}

void Virtqueue::push_used(DescriptorChain chain, uint32_t written) {
  CHECK(written <= chain.writable_bytes_);
  if (state_->dirty) state_->mark_dirty(chain);
  state_->ring->push_used(chain, written);
  --state_->in_flight;
  state_->keep(std::move(chain.slices_));
}

void Virtqueue::push_used_together(std::span<UsedChain> chains) {
  if (state_->logged) {
    for (UsedChain& used : chains) push_used(std::move(used.chain), used.written);
    return;
  }
  for (const UsedChain& used : chains) {
    CHECK(used.written <= used.chain.writable_bytes_);
    if (state_->dirty) state_->mark_dirty(used.chain);
  }
  state_->ring->push_used_together(chains);
  for (UsedChain& used : chains) state_->keep(std::move(used.chain.slices_));
  state_->in_flight -= static_cast<uint16_t>(chains.size());
}

bool Virtqueue::signal_used_if_needed() {
  if (state_->dirty) state_->dirty->tell();
  if (!state_->ring->interrupt_due()) return false;
  if (state_->call) signal_eventfd(state_->call);
  return true;
}

void Virtqueue::State::stop_listening() {
  if (!listening) return;
  listening->loop->unwatch(listening->watch);
  listening->loop = nullptr;  // what was posted finds nobody
  listening.reset();
  processing = false;
}

void Virtqueue::State::give_up(const std::shared_ptr<Listening>& mine, Error error) {
  stop_listening();
  mine->broken(std::move(error));  // may destroy the queue
}

void Virtqueue::State::run(State* state, const std::shared_ptr<Listening>& mine) {
  if (!mine->loop) return;  // so the queue may be gone as well
  state->processing = true;
  state->budget = state->size;
  Result<void> result = mine->process();
  if (!mine->loop) return;
  state->processing = false;
  if (!result) return state->give_up(mine, std::move(result).error());
  if (state->budget == 0) run_soon(state, mine);
}

void Virtqueue::State::run_soon(State* state, const std::shared_ptr<Listening>& mine) {
  mine->loop->post([state, mine] { run(state, mine); });
}

Result<void> Virtqueue::listen(EventLoop& loop, std::function<Result<void>()> process,
                               std::function<void(Error)> broken) {
  State* state = state_.get();
  state->stop_listening();
  auto mine = std::make_shared<Listening>();
  mine->process = std::move(process);
  mine->broken = std::move(broken);
  auto on_kick = [state, mine](uint32_t events) {
    if (!mine->loop) return;
    if (events & (EPOLLERR | EPOLLHUP)) {  // no eventfd does this
      return state->give_up(mine,
                            state->about(Error(std::errc::io_error, "its kick descriptor failed")));
    }
    State::run(state, mine);
  };
  // Each write to an eventfd is an edge, so a kick need not be read: a system call less for each.
  // What stays in the counter is one look at the ring too many for who listens next. That one may
  // find it full, which a process that was taken over has left: it would swallow kicks.
  drain_eventfd(state->kick);
  mine->watch = TRY(with_context(loop.watch(state->kick, EPOLLIN | EPOLLET, std::move(on_kick)),
                                 format_text("queue {}: its kick descriptor", state->index)));
  mine->loop = &loop;
  state->listening = mine;
  State::run_soon(state, mine);
  return {};
}

void Virtqueue::process_soon() {
  if (state_->listening) State::run_soon(state_.get(), state_->listening);
}

void Virtqueue::unlisten() { state_->stop_listening(); }

}  // namespace crosvm
