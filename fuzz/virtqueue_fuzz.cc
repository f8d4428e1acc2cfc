// A hostile driver of a virtqueue. The first byte picks the kind of ring and its features; then
// each step writes a field of the ring or of an indirect table, as the input says, or lets the
// device take and give back chains.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "virtio/rig/queue_bench.h"

namespace crosvm {
namespace {

constexpr uint16_t kSize = 8;
constexpr size_t kMaxHeld = 4;

class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  template <class T>
  T take() {
    T value = 0;
    const size_t size = std::min(sizeof(T), bytes_.size());
    if (size > 0) std::memcpy(&value, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return value;
  }

 private:
  std::span<const uint8_t> bytes_;
};

class Play {
 public:
  explicit Play(QueueBench& bench) : bench_(bench) {
    bench.driver().restart({});
    bench.reopen({});
    const VringAddresses& at = bench.driver().ring().addresses();
    table_ = bench.memory().allocate(16 * 16);
    bench.memory().fill(table_, 16 * 16, std::byte{0});
    areas_ = {at.descriptor_area, at.driver_area, at.device_area, table_};
  }
  ~Play() { bench_.memory().free(table_); }
  Play(const Play&) = delete;
  Play& operator=(const Play&) = delete;

  void run(Input& input) {
    while (!input.empty() && step(input)) {
    }
  }

 private:
  /// False when the ring is broken.
  bool step(Input& input) {
    const auto op = input.take<uint8_t>();
    switch (op % 8) {
      case 0:
      case 1:
        return pop();
      case 2:
        give_back(op >> 3);
        return true;
      case 3:
        bench_.queue().signal_used_if_needed();
        return true;
      case 4:
        undo();
        return true;
      case 5:
        write_descriptor(input, op >> 3);
        return true;
      default:
        write_field(input, op >> 3);
        return true;
    }
  }

  bool pop() {
    if (held_.size() == kMaxHeld) give_back(0);
    auto popped = bench_.queue().pop();
    if (!popped) return false;
    if (!*popped) return true;
    held_.push_back(std::move(**popped));
    last_is_newest_ = true;
    judge(held_.back());
    return true;
  }

  /// Whatever the driver wrote: all of a chain can be read and written, and it is no larger than it
  /// may be.
  void judge(const DescriptorChain& chain) {
    const ChainBuffers from = chain.device_readable();
    const ChainBuffers to = chain.device_writable();
    CHECK(from.size() + to.size() > 0 && from.size() + to.size() <= UINT32_MAX);
    std::array<std::byte, 64> bytes{};
    const auto some = [&](uint64_t size) {
      return std::span(bytes).first(std::min<uint64_t>(size, bytes.size()));
    };
    CHECK(from.read_bytes(0, some(from.size())));
    CHECK(from.read_bytes(from.size() - some(from.size()).size(), some(from.size())));
    CHECK(to.write_bytes(to.size() - some(to.size()).size(), some(to.size())));
    CHECK(!to.write_bytes(to.size(), some(1)));
    CHECK(bench_.queue().in_flight() <= kSize);
  }

  void give_back(size_t which) {
    if (held_.empty()) return;
    const auto at = held_.begin() + static_cast<ptrdiff_t>(which % held_.size());
    const auto written = static_cast<uint32_t>(at->device_writable().size());
    bench_.queue().push_used(std::move(*at), written);
    held_.erase(at);
    last_is_newest_ = false;
  }

  /// Only the chain popped last can be undone.
  void undo() {
    if (!held_.empty() && last_is_newest_) {
      bench_.queue().undo_pop(std::move(held_.back()));
      held_.pop_back();
    }
    last_is_newest_ = false;
  }

  /// A descriptor with an address near something, so that chains are often good.
  void write_descriptor(Input& input, size_t index) {
    const auto packed_fields = input.take<uint32_t>();
    static constexpr std::array<uint64_t, 4> kBases{0, RigMemory::kBorder.value - 64,
                                                    RigMemory::kEnd.value - 64, UINT64_MAX - 63};
    const uint64_t base = (index & 16) != 0 ? table_.value : kBases[packed_fields >> 30];
    const RingDescriptor descriptor{.address = base + (packed_fields & 0x7f),
                                    .length = packed_fields >> 7 & 0xff,
                                    .third = input.take<uint16_t>(),
                                    .fourth = input.take<uint16_t>()};
    const GuestAddress area = (packed_fields >> 29 & 1) != 0 ? table_ : areas_[0];
    CHECK(bench_.memory().guest().write(area + 16 * (index % kSize), descriptor));
  }

  void write_field(Input& input, size_t area) {
    const size_t offset = input.take<uint8_t>() % 128;
    const auto value = input.take<uint16_t>();
    // Past the end of a part is its neighbour in RAM: the driver owns that as well.
    CHECK(bench_.memory().guest().write(areas_[area % 4] + (offset & ~size_t{1}), value));
  }

  QueueBench& bench_;
  GuestAddress table_;
  std::array<GuestAddress, 4> areas_;
  std::vector<DescriptorChain> held_;
  bool last_is_newest_ = false;
};

/// One for every kind of ring: making guest memory takes far longer than a run.
QueueBench& bench_of(uint8_t kind) {
  static std::array<std::optional<QueueBench>, 8> benches;
  std::optional<QueueBench>& bench = benches[kind % 8];
  if (!bench) {
    bench.emplace(QueueBench::Options{.size = kSize,
                                      .packed = (kind & 1) != 0,
                                      .event_idx = (kind & 2) != 0,
                                      .indirect = (kind & 4) != 0});
  }
  return *bench;
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  crosvm::Input input(std::span(data, size).subspan(1));
  crosvm::Play(crosvm::bench_of(data[0])).run(input);
  return 0;
}
