#include "disk/sector_model.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "base/result.h"

namespace crosvm::test {
namespace {

using Kind = DiskEvent::Kind;

constexpr uint64_t kChanging = UINT64_MAX;

void add(std::vector<uint64_t>& numbers, uint64_t number) {
  if (std::ranges::find(numbers, number) == numbers.end()) numbers.push_back(number);
}

}  // namespace

SectorModel::SectorModel(uint64_t sectors, uint64_t most) : all_(most), sectors_(sectors) {}

uint64_t SectorModel::number_of(const DiskEvent& event, uint64_t index) {
  return event.kind == Kind::kWrite ? event.number + (index - event.first) : 0;
}

void SectorModel::apply(const DiskEvent& event) {
  if (event.kind != Kind::kEnd) {
    Running& running = running_[event.id] = {.event = event};
    if (event.kind == Kind::kFlush) return begin_flush(running);
    return event.kind == Kind::kResize ? begin_resize(event) : begin_change(event);
  }
  auto ended = running_.extract(event.id);
  CHECK(!ended.empty());
  const Running& running = ended.mapped();
  switch (running.event.kind) {
    case Kind::kFlush:
      return event.error == 0 ? end_flush(running) : void();
    case Kind::kResize:
      return end_resize(running.event, event.error);
    default:
      return end_change(running.event, event.error);
  }
}

void SectorModel::begin_change(const DiskEvent& event) {
  for (uint64_t i = event.first; i < event.first + event.count; ++i) {
    Sector& sector = all_[i];
    add(sector.now, number_of(event, i));
    add(sector.allowed, number_of(event, i));
    ++sector.version;
    ++sector.changing;
  }
}

void SectorModel::end_change(const DiskEvent& event, int error) {
  for (uint64_t i = event.first; i < event.first + event.count; ++i) {
    Sector& sector = all_[i];
    --sector.changing;
    ++sector.version;
    // A discard may have done nothing, and what failed may have done its work.
    if (error != 0 || event.kind == Kind::kDiscard) continue;
    sector.now = {number_of(event, i)};
    if (writes_stay_) sector.allowed = sector.now;
  }
}

void SectorModel::begin_flush(Running& running) const {
  for (const Sector& sector : all_) {
    running.versions.push_back(sector.changing > 0 ? kChanging : sector.version);
  }
}

void SectorModel::end_flush(const Running& running) {
  for (size_t i = 0; i < all_.size(); ++i) {
    if (running.versions[i] == all_[i].version) all_[i].allowed = all_[i].now;
  }
}

void SectorModel::begin_resize(const DiskEvent& event) {
  perhaps_sectors_ = event.count;
  for (uint64_t i = event.count; i < sectors_; ++i) {
    ++all_[i].version;
    add(all_[i].now, 0);
    add(all_[i].allowed, 0);
  }
}

void SectorModel::end_resize(const DiskEvent& event, int error) {
  if (error != 0) return;
  perhaps_sectors_.reset();
  for (uint64_t i = event.count; i < sectors_; ++i) adopt(i, 0);
  sectors_ = event.count;
}

bool SectorModel::is_busy(uint64_t first, uint64_t count) const {
  return std::any_of(all_.begin() + static_cast<ptrdiff_t>(first),
                     all_.begin() + static_cast<ptrdiff_t>(first + count),
                     [](const Sector& sector) { return sector.changing > 0; });
}

bool SectorModel::may_hold(uint64_t index, uint64_t number) const {
  return std::ranges::find(all_[index].allowed, number) != all_[index].allowed.end();
}

bool SectorModel::may_have_sectors(uint64_t sectors) const {
  return sectors == sectors_ || sectors == perhaps_sectors_;
}

std::string SectorModel::describe(uint64_t index) const {
  std::string text;
  for (uint64_t number : all_[index].allowed) text += format_text(" {}", number);
  return text;
}

void SectorModel::restart(uint64_t sectors) {
  running_.clear();
  perhaps_sectors_.reset();
  for (Sector& sector : all_) sector.changing = 0;
  for (uint64_t i = sectors; i < all_.size(); ++i) adopt(i, 0);
  sectors_ = sectors;
}

void SectorModel::adopt(uint64_t index, uint64_t number) {
  Sector& sector = all_[index];
  sector.now = sector.allowed = {number};
  ++sector.version;
}

void SectorModel::fill(std::span<std::byte> sector, uint64_t number) {
  for (size_t at = 0; at + sizeof(number) <= sector.size(); at += sizeof(number)) {
    std::memcpy(sector.data() + at, &number, sizeof(number));
  }
}

std::optional<uint64_t> SectorModel::number_in(std::span<const std::byte> sector) {
  uint64_t number = 0;
  std::memcpy(&number, sector.data(), sizeof(number));
  for (size_t at = sizeof(number); at + sizeof(number) <= sector.size(); at += sizeof(number)) {
    if (std::memcmp(sector.data() + at, &number, sizeof(number)) != 0) return std::nullopt;
  }
  return number;
}

}  // namespace crosvm::test
