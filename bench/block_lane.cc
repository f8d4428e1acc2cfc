#include "bench/block_lane.h"

#include <linux/virtio_blk.h>

#include <span>
#include <utility>

namespace crosvm {
namespace {

constexpr uint16_t kNone = UINT16_MAX;

struct Header {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};

}  // namespace

BlockLane::BlockLane(Rig& rig, uint16_t queue, uint32_t type, uint16_t depth, uint64_t blocks)
    : rig_(rig), driver_(rig.driver(queue)), type_(type), blocks_(blocks), random_(queue) {
  slot_of_.resize(65536, kNone);
  for (uint16_t i = 0; i < depth; ++i) {
    RigMemory& memory = rig.memory();
    Slot slot{.header = memory.allocate(sizeof(Header)),
              .status = memory.allocate(1),
              .table = memory.allocate(3 * 16),
              .buffers = {}};
    const bool reads = type == VIRTIO_BLK_T_IN;
    slot.buffers = {{{slot.header, sizeof(Header), false},
                     {memory.allocate(kBytes, kBytes), kBytes, reads},
                     {slot.status, 1, true}}};
    slots_.push_back(slot);
  }
}

BlockLane::~BlockLane() {
  for (const Slot& slot : slots_) {
    rig_.memory().free(slot.header);
    rig_.memory().free(slot.status);
    rig_.memory().free(slot.table);
    rig_.memory().free(slot.buffers[1].address);
  }
}

void BlockLane::begin() {
  for (uint16_t i = 0; i < slots_.size(); ++i) offer(i);
  show();
}

uint64_t BlockLane::turn(bool more) {
  uint64_t ended = 0;
  while (auto used = driver_.ring().take_used()) {
    const uint16_t index = std::exchange(slot_of_[used->id], kNone);
    CHECK(index != kNone);
    CHECK(rig_.memory().guest().read<uint8_t>(slots_[index].status).value_or(1) == 0);
    ++ended;
    --in_flight_;
    if (more) offer(index);
  }
  if (ended > 0 && more) show();
  return ended;
}

void BlockLane::offer(uint16_t index) {
  const Slot& slot = slots_[index];
  const Header header{type_, 0, random_() % blocks_ * (kBytes / 512)};
  rig_.memory().write(slot.header, std::as_bytes(std::span(&header, 1)));
  auto id = driver_.ring().add(slot.buffers, slot.table);
  CHECK(id.has_value());
  slot_of_[*id] = index;
  ++in_flight_;
}

void BlockLane::show() {
  if (driver_.ring().publish()) driver_.kick_anyway();
}

}  // namespace crosvm
