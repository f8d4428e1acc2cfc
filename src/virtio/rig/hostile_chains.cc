#include "virtio/rig/hostile_chains.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "base/format.h"
#include "virtio/rig/packed_driver_ring.h"
#include "virtio/rig/split_driver_ring.h"

namespace crosvm {
namespace {

constexpr uint64_t kArenaBytes = 1 << 20;
constexpr uint64_t kMaxBuffer = 4096;
constexpr uint16_t kUnusedBits = 0x7f00 & ~VRING_DESC_F_INDIRECT;

struct FaultFacts {
  std::string_view name;
  bool malformed;
  bool split;
  bool packed;
  bool table;  // only where indirect tables were negotiated
};

constexpr std::array<FaultFacts, static_cast<size_t>(kLastChainFault) + 1> kFacts{{
    {"no fault", false, true, true, false},
    {"buffers of no bytes inside", false, true, true, false},
    {"a buffer across adjacent regions", false, true, true, false},
    {"reserved flags", false, false, true, false},
    {"WRITE on a table", false, true, true, true},
    {"no bytes at all", true, true, true, false},
    {"a buffer past RAM", true, true, true, false},
    {"a buffer in the hole", true, true, true, false},
    {"a buffer that ends in the hole", true, true, true, false},
    {"a buffer that wraps around", true, true, true, false},
    {"a buffer of 4 GiB", true, true, true, false},
    {"readable after writable", true, true, true, false},
    {"a loop", true, true, true, false},
    {"next out of range", true, true, true, false},
    {"head out of range", true, true, false, false},
    {"unknown flags", true, true, false, false},
    {"INDIRECT|NEXT", true, true, true, true},
    {"INDIRECT in a list", true, false, true, true},
    {"nested INDIRECT", true, true, true, true},
    {"a table of odd length", true, true, true, true},
    {"an empty table", true, true, true, true},
    {"a table outside RAM", true, true, true, true},
    {"a loop in a table", true, true, false, true},
    {"next out of range in a table", true, true, false, true},
    {"a table longer than the queue", true, false, true, true},
    {"INDIRECT without the feature", true, true, true, false},
    {"avail idx far ahead", true, true, false, false},
    {"avail idx that goes back", true, true, false, false},
}};

const FaultFacts& facts(ChainFault fault) { return kFacts[static_cast<size_t>(fault)]; }

uint16_t write_flag(const DriverBuffer& buffer) { return buffer.writable ? VRING_DESC_F_WRITE : 0; }

}  // namespace

std::string_view name_of(ChainFault fault) { return facts(fault).name; }
bool is_malformed(ChainFault fault) { return facts(fault).malformed; }

HostileChains::HostileChains(RigDriver& driver, uint64_t seed, Fill fill)
    : driver_(driver),
      memory_(driver.memory()),
      random_(seed),
      fill_(std::move(fill)),
      arena_(memory_.allocate(kArenaBytes)) {}

HostileChains::~HostileChains() { memory_.free(arena_); }

bool HostileChains::can(ChainFault fault) const {
  const RigDriver::Options& options = driver_.options();
  if (!(options.ring.packed ? facts(fault).packed : facts(fault).split)) return false;
  if (fault == ChainFault::kIndirectUnasked) return !options.indirect;
  return options.indirect || !facts(fault).table;
}

HostileChain HostileChains::offer() {
  ChainFault fault = ChainFault::kNone;
  if (pick(3) != 0) {
    do {
      fault = static_cast<ChainFault>(pick(kFacts.size()));
    } while (!can(fault));
  }
  return offer(fault);
}

HostileChain HostileChains::offer(ChainFault fault) {
  arena_used_ = 0;
  HostileChain chain{.fault = fault, .buffers = make_buffers(), .id = 0};
  spoil_buffers(fault, chain.buffers);
  fill_readable(chain.buffers);
  driver_.options().ring.packed ? offer_packed(chain) : offer_split(chain);
  return chain;
}

GuestAddress HostileChains::place(uint64_t bytes) {
  const GuestAddress address = arena_ + arena_used_ + pick(3);  // rarely aligned
  arena_used_ += bytes + 16;
  CHECK(arena_used_ <= kArenaBytes);
  return address;
}

std::vector<DriverBuffer> HostileChains::make_buffers() {
  // One descriptor stays free, for a table behind them.
  const uint64_t most = std::clamp<uint64_t>(driver_.options().ring.size - 1u, 1, 8);
  const uint64_t count = 1 + pick(most);
  const uint64_t readable = pick(count + 1);
  std::vector<DriverBuffer> buffers;
  for (uint64_t i = 0; i < count; ++i) {
    const auto length = static_cast<uint32_t>(1 + pick(pick(4) == 0 ? kMaxBuffer : 64));
    buffers.push_back({.address = place(length), .length = length, .writable = i >= readable});
  }
  return buffers;
}

void HostileChains::spoil_buffers(ChainFault fault, std::vector<DriverBuffer>& buffers) {
  DriverBuffer& victim = buffers[pick(buffers.size())];
  switch (fault) {
    case ChainFault::kZeroLengthInside:
      // Their addresses and even their direction do not count.
      for (uint64_t i = 1 + pick(2); i > 0 && buffers.size() + 2 < driver_.options().ring.size;
           --i) {
        buffers.insert(buffers.begin() + static_cast<ptrdiff_t>(pick(buffers.size() + 1)),
                       {.address = GuestAddress{random_()}, .length = 0, .writable = pick(2) == 0});
      }
      break;
    case ChainFault::kAcrossBorder:
      victim.address = GuestAddress{RigMemory::kBorder.value - victim.length / 2};
      break;
    case ChainFault::kAllZeroLength:
      for (DriverBuffer& buffer : buffers) buffer.length = 0;
      break;
    case ChainFault::kPastRam:
      victim.address = RigMemory::kEnd + pick(1 << 20);
      break;
    case ChainFault::kInHole:
      victim.address = RigMemory::kLowEnd + pick(1 << 20);
      break;
    case ChainFault::kAcrossHole:
      victim.address =
          GuestAddress{RigMemory::kLowEnd.value - victim.length + 1 + pick(victim.length)};
      break;
    case ChainFault::kWrapsAround:
      victim.address = GuestAddress{UINT64_MAX - victim.length + 1 + pick(victim.length)};
      break;
    case ChainFault::kFourGiB:
      victim.length = UINT32_MAX - static_cast<uint32_t>(pick(2));
      break;
    case ChainFault::kReadableAfterWritable:
      buffers.resize(1);
      buffers[0].writable = true;
      buffers.push_back({.address = place(64), .length = 64, .writable = false});
      break;
    default:
      break;
  }
}

void HostileChains::fill_readable(const std::vector<DriverBuffer>& buffers) {
  for (const DriverBuffer& buffer : buffers) {
    if (buffer.length > kMaxBuffer) continue;
    std::vector<std::byte> bytes(buffer.length);
    for (std::byte& byte : bytes) byte = std::byte(random_());
    if (fill_ && !buffer.writable) fill_(bytes, random_);
    // What lies outside RAM cannot be filled.
    (void)memory_.guest().write_bytes(buffer.address, bytes);
  }
}

bool HostileChains::wants_table(ChainFault fault) {
  if (fault == ChainFault::kIndirectUnasked) return true;
  if (!driver_.options().indirect) return false;
  if (facts(fault).table) return true;
  const bool in_ring = fault == ChainFault::kLoop || fault == ChainFault::kNextOutOfRange ||
                       fault == ChainFault::kUnknownFlags;
  return !in_ring && pick(2) == 0;
}

RingDescriptor HostileChains::table_descriptor(const HostileChain& chain,
                                               const std::vector<RingDescriptor>& table) {
  auto length = static_cast<uint32_t>(table.size() * sizeof(RingDescriptor));
  GuestAddress address = place(length);
  CHECK(memory_.guest().write_bytes(address, std::as_bytes(std::span(table))));
  if (chain.fault == ChainFault::kTableOutside) address = RigMemory::kLowEnd;
  if (chain.fault == ChainFault::kTableEmpty) length = 0;
  if (chain.fault == ChainFault::kTableOddLength) length -= static_cast<uint32_t>(1 + pick(15));
  return {.address = address.value, .length = length};
}

std::vector<RingDescriptor> HostileChains::split_table(const HostileChain& chain,
                                                       std::span<const DriverBuffer> buffers) {
  std::vector<RingDescriptor> table;
  for (size_t i = 0; i < buffers.size(); ++i) {
    const bool more = i + 1 < buffers.size();
    table.push_back(
        {.address = buffers[i].address.value,
         .length = buffers[i].length,
         .third = static_cast<uint16_t>(write_flag(buffers[i]) | (more ? VRING_DESC_F_NEXT : 0)),
         .fourth = static_cast<uint16_t>(more ? i + 1 : random_())});
  }
  RingDescriptor& last = table.back();
  if (chain.fault == ChainFault::kTableLoop) {
    last.third |= VRING_DESC_F_NEXT;
    last.fourth = static_cast<uint16_t>(table.size() - 1);
  }
  if (chain.fault == ChainFault::kTableNextOutOfRange) {
    last.third |= VRING_DESC_F_NEXT;
    last.fourth = static_cast<uint16_t>(table.size() + pick(1000));
  }
  if (chain.fault == ChainFault::kNestedIndirect) last.third |= VRING_DESC_F_INDIRECT;
  return table;
}

void HostileChains::offer_split(HostileChain& chain) {
  auto& ring = static_cast<SplitDriverRing&>(driver_.ring());
  const SplitLayout& layout = *ring.split();
  const uint16_t size = layout.size();
  std::vector<uint16_t> places(size);
  std::iota(places.begin(), places.end(), uint16_t{0});
  std::ranges::shuffle(places, random_);

  const bool with_table = wants_table(chain.fault);
  // A table may stand behind descriptors of the ring (§2.7.5.3.2).
  const size_t before = with_table ? pick(chain.buffers.size()) : chain.buffers.size();
  std::vector<RingDescriptor> list;
  for (size_t i = 0; i < before; ++i) {
    const DriverBuffer& buffer = chain.buffers[i];
    list.push_back({buffer.address.value, buffer.length, write_flag(buffer), 0});
  }
  if (with_table) {
    RingDescriptor last =
        table_descriptor(chain, split_table(chain, std::span(chain.buffers).subspan(before)));
    last.third = VRING_DESC_F_INDIRECT;
    if (chain.fault == ChainFault::kWriteOnTable) last.third |= VRING_DESC_F_WRITE;
    if (chain.fault == ChainFault::kIndirectNext) last.third |= VRING_DESC_F_NEXT;
    list.push_back(last);
  }
  for (size_t i = 0; i + 1 < list.size(); ++i) {
    list[i].third |= VRING_DESC_F_NEXT;
    list[i].fourth = places[i + 1];
  }
  RingDescriptor& last = list.back();
  if (chain.fault == ChainFault::kLoop) {
    last.third |= VRING_DESC_F_NEXT;
    last.fourth = places[list.size() - 1];
  }
  if (chain.fault == ChainFault::kNextOutOfRange) {
    last.third |= VRING_DESC_F_NEXT;
    last.fourth = static_cast<uint16_t>(size + pick(UINT16_MAX - size));
  }
  if (chain.fault == ChainFault::kUnknownFlags) {
    list[pick(list.size())].third |= static_cast<uint16_t>(8u << pick(13));
  }
  for (size_t i = 0; i < list.size(); ++i) layout.set_descriptor(places[i], list[i]);

  chain.id = places[0];
  if (chain.fault == ChainFault::kHeadOutOfRange) {
    chain.id = static_cast<uint16_t>(size + pick(UINT16_MAX - size));
  }
  ring.offer(chain.id);
  const uint16_t idx = layout.avail_idx();
  if (chain.fault == ChainFault::kIndexAhead) {
    layout.set_avail_idx(static_cast<uint16_t>(idx + size + 1 + pick(1000)));
  } else if (chain.fault == ChainFault::kIndexBehind) {
    layout.set_avail_idx(static_cast<uint16_t>(idx - 1 - pick(1000)));
  } else {
    ring.publish();
  }
}

std::vector<RingDescriptor> HostileChains::packed_table(const HostileChain& chain) {
  std::vector<RingDescriptor> table;
  for (const DriverBuffer& buffer : chain.buffers) {
    table.push_back({.address = buffer.address.value,
                     .length = buffer.length,
                     .third = static_cast<uint16_t>(random_()),  // an id has no meaning here
                     .fourth = write_flag(buffer)});
  }
  if (chain.fault == ChainFault::kNestedIndirect) table.back().fourth |= VRING_DESC_F_INDIRECT;
  if (chain.fault == ChainFault::kTableTooLong) {
    const RingDescriptor last = table.back();
    table.resize(driver_.options().ring.size + 1u, last);
  }
  return table;
}

void HostileChains::offer_packed(HostileChain& chain) {
  auto& ring = static_cast<PackedDriverRing&>(driver_.ring());
  const uint16_t size = driver_.options().ring.size;
  chain.id = static_cast<uint16_t>(random_());
  std::vector<PackedDriverRing::Element> list;
  if (wants_table(chain.fault)) {
    const RingDescriptor table = table_descriptor(chain, packed_table(chain));
    uint16_t flags = VRING_DESC_F_INDIRECT;
    if (chain.fault == ChainFault::kWriteOnTable) flags |= VRING_DESC_F_WRITE;
    if (chain.fault == ChainFault::kIndirectNext) flags |= VRING_DESC_F_NEXT;
    if (chain.fault == ChainFault::kIndirectInList) {
      const GuestAddress first = place(8);
      list.push_back({first.value, 8, chain.id, VRING_DESC_F_NEXT});
    }
    list.push_back({table.address, table.length, chain.id, flags});
  } else {
    if (chain.fault == ChainFault::kLoop) {  // as near as a packed ring comes to one
      chain.buffers.assign(size, DriverBuffer{place(8), 8, true});
    }
    for (const DriverBuffer& buffer : chain.buffers) {
      // Only the last one's id counts (§2.8.6).
      list.push_back({buffer.address.value, buffer.length, static_cast<uint16_t>(random_()),
                      static_cast<uint16_t>(write_flag(buffer) | VRING_DESC_F_NEXT)});
    }
    list.back().id = chain.id;
    const bool goes_on =
        chain.fault == ChainFault::kLoop || chain.fault == ChainFault::kNextOutOfRange;
    if (!goes_on) list.back().flags &= static_cast<uint16_t>(~VRING_DESC_F_NEXT);
  }
  if (chain.fault == ChainFault::kReservedFlags) {
    list[pick(list.size())].flags |= static_cast<uint16_t>(random_()) & kUnusedBits;
  }
  ring.expect(chain.id, static_cast<uint16_t>(list.size()));
  ring.offer(list);
  ring.publish();
}

namespace {

/// One queue under attack.
class Attack {
 public:
  Attack(Rig& rig, const HostileOptions& options)
      : rig_(rig),
        options_(options),
        driver_(rig.driver(options.queue)),
        chains_(driver_, options.seed, options.fill) {}

  HostileResult run() {
    rig_.reset();
    for (number_ = 0; number_ < options_.chains && result_.failure.empty(); ++number_) play();
    if (result_.failure.empty()) rig_.reset();
    return std::move(result_);
  }

 private:
  void play() {
    const HostileChain chain = options_.only ? chains_.offer(*options_.only) : chains_.offer();
    const bool malformed = is_malformed(chain.fault);
    ++(malformed ? result_.malformed : result_.well_formed);
    driver_.kick_anyway();
    const std::optional<DriverRing::Used> used = wait(chain);
    if (used) {
      ++result_.answered;
      judge(chain, *used);
    } else if (!rig_.needs_reset()) {
      if (options_.answers) fail(chain, "neither came back nor led to a reset");
    } else if (!malformed && !options_.may_refuse) {
      fail(chain, "is well-formed and led to a reset");
    }
    ++kept_;
    const bool keeps = !options_.answers && kept_ >= driver_.options().ring.size / 16u;
    if (rig_.needs_reset() || malformed || keeps) reset();
  }

  void judge(const HostileChain& chain, const DriverRing::Used& used) {
    if (is_malformed(chain.fault)) return fail(chain, "was answered");
    if (options_.answers && used.id != chain.id) {
      return fail(chain, format_text("came back as {} instead of {}", used.id, chain.id));
    }
    uint64_t room = 0;
    for (const DriverBuffer& buffer : chain.buffers) room += buffer.writable ? buffer.length : 0;
    if (options_.answers && used.written > room) {
      return fail(chain, format_text("has room for {} bytes, {} were written", room, used.written));
    }
    if (options_.judge) {
      const std::string wrong = options_.judge(chain, used);
      if (!wrong.empty()) return fail(chain, wrong);
    }
    while (driver_.ring().take_used()) {  // where answers take their time, earlier ones may follow
      if (options_.answers) return fail(chain, "came back together with another one");
    }
  }

  /// Whether `used` answers an earlier chain: where answers take their time it may come any time. A
  /// malformed chain may have the id of one that is still out.
  bool is_late(const HostileChain& chain, const DriverRing::Used& used) const {
    if (options_.answers) return false;
    return used.id != chain.id || (is_malformed(chain.fault) && kept_ > 0);
  }

  /// What comes back, or nothing when the device needs a reset or time is up.
  std::optional<DriverRing::Used> wait(const HostileChain& chain) {
    const auto patience = options_.answers ? RigDriver::kPatience : std::chrono::milliseconds(1);
    const auto deadline = RigWaiter::Clock::now() + patience;
    for (;;) {
      driver_.ring().ask_for_interrupt();
      if (auto used = driver_.ring().take_used()) {
        if (!is_late(chain, *used)) return used;
        ++result_.answered;
        continue;
      }
      if (rig_.needs_reset() || RigWaiter::Clock::now() >= deadline) return std::nullopt;
      driver_.waiter().wait(driver_.call_descriptor(), deadline);
      driver_.take_interrupts();
    }
  }

  void reset() {
    ++result_.resets;
    kept_ = 0;
    rig_.reset();
  }

  void fail(const HostileChain& chain, std::string_view what) {
    result_.failure = format_text("chain {} of seed {} ({}) {}", number_, options_.seed,
                                  name_of(chain.fault), what);
  }

  Rig& rig_;
  const HostileOptions& options_;
  RigDriver& driver_;
  HostileChains chains_;
  HostileResult result_;
  unsigned number_ = 0;
  unsigned kept_ = 0;
};

}  // namespace

HostileResult play_hostile_chains(Rig& rig, const HostileOptions& options) {
  return Attack(rig, options).run();
}

}  // namespace crosvm
