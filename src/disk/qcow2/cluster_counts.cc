#include "disk/qcow2/cluster_counts.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace crosvm {

uint64_t ClusterCounts::get(const Page& page, uint64_t index) {
  const uint64_t bit = index << page.order;
  return page.words[bit / 64] >> (bit % 64) & most_of(page.order);
}

void ClusterCounts::set(Page& page, uint64_t index, uint64_t count) {
  const uint64_t bit = index << page.order;
  uint64_t& word = page.words[bit / 64];
  word = (word & ~(most_of(page.order) << (bit % 64))) | count << (bit % 64);
}

uint64_t ClusterCounts::get(uint64_t cluster) const {
  const uint64_t page = cluster / kPage;
  return page < pages_.size() && pages_[page].words ? get(pages_[page], cluster % kPage) : 0;
}

/// So that the page can hold `count`. False when there is no memory for that.
bool ClusterCounts::make_room(Page& page, uint64_t count) {
  uint32_t order = page.order;
  while (count > most_of(order)) ++order;
  if (page.words && order == page.order) return true;
  const size_t freed = page.words ? page_words(page.order) * 8 : 0;
  const size_t taken = page_words(order) * 8;
  if (bytes_ + taken > most_bytes_) {
    is_full_ = true;
    return false;
  }
  Page made{.words = std::make_unique<uint64_t[]>(page_words(order)), .order = order};
  for (uint64_t i = 0; page.words && i < kPage; ++i) set(made, i, get(page, i));
  page = std::move(made);
  bytes_ += taken - freed;
  return true;
}

void ClusterCounts::add(uint64_t cluster, uint64_t times) {
  const uint64_t page = cluster / kPage;
  if (page >= pages_.size()) pages_.resize(page + 1);
  const uint64_t count = std::min(kMany, get(cluster) + std::min(times, kMany));
  if (!make_room(pages_[page], count)) return;
  set(pages_[page], cluster % kPage, count);
  end_ = std::max(end_, cluster + 1);
}

void ClusterCounts::remove(uint64_t cluster) {
  const uint64_t count = get(cluster);
  if (count > 0) set(pages_[cluster / kPage], cluster % kPage, count - 1);
}

uint64_t ClusterCounts::next_used(uint64_t from, uint64_t until) const {
  while (from < std::min(until, end_)) {
    const Page& page = pages_[from / kPage];
    if (!page.words) {
      from = (from / kPage + 1) * kPage;
      continue;
    }
    const uint64_t bit = from % kPage << page.order;
    const uint64_t rest = page.words[bit / 64] >> (bit % 64);
    if (rest != 0) {
      from += static_cast<uint64_t>(std::countr_zero(rest)) >> page.order;
      break;
    }
    from += (64 - bit % 64) >> page.order;
  }
  return from < end_ ? std::min(from, until) : until;
}

}  // namespace crosvm
