#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

#include "vhost/vhost_user_channel.h"

namespace crosvm {

/// Answers in the order of the requests, whenever each of them is known. A request that wants no
/// answer has its place too.
class VhostUserAnswers {
 public:
  using Ticket = uint64_t;

  Ticket reserve() {
    waiting_.emplace_back();
    return first_ + waiting_.size() - 1;
  }
  /// Once per ticket.
  void finish(Ticket ticket, std::optional<VhostUserMessage> answer) {
    CHECK(ticket - first_ < waiting_.size());
    Place& place = waiting_[static_cast<size_t>(ticket - first_)];
    place.known = true;
    place.wanted = answer.has_value();
    if (answer) place.answer = std::move(*answer);
  }
  /// The next answer to be sent, if it is known.
  std::optional<VhostUserMessage> next() {
    while (!waiting_.empty() && waiting_.front().known) {
      Place place = std::move(waiting_.front());
      waiting_.pop_front();
      ++first_;
      if (place.wanted) return std::move(place.answer);
    }
    return std::nullopt;
  }
  size_t outstanding() const { return waiting_.size(); }

 private:
  struct Place {
    bool known = false;
    bool wanted = false;
    VhostUserMessage answer;
  };
  std::deque<Place> waiting_;
  Ticket first_ = 0;
};

}  // namespace crosvm
