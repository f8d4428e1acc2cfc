#include "vhost/vhost_user_session.h"

// The messages about memory: the guest's, and that for requests in flight.

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "vhost/vhost_user_session_messages.h"

namespace crosvm {

using namespace vhost_user_session;

namespace {

/// The description, without the padding that some front-ends leave out.
Result<VhostUserInflight> inflight_payload(const VhostUserMessage& message) {
  VhostUserMessage whole = vhost_user_message(message.request);
  whole.payload = message.payload;
  if (whole.payload.size() == kVhostUserInflightBytes)
    whole.payload.resize(sizeof(VhostUserInflight));
  return payload<VhostUserInflight>(whole);
}

}  // namespace

Result<VhostUserSession::Answer> VhostUserSession::take_memory(VhostUserMessage& message,
                                                               Ticket ticket) {
  switch (message.request) {
    case VHOST_USER_GET_MAX_MEM_SLOTS:
      return reply(message, uint64_t{kVhostUserMaxMemSlots});
    case VHOST_USER_ADD_MEM_REG: {
      const auto region = TRY(payload<VhostUserSingleRegion>(message)).region;
      Fd file = TRY(only_fd(message));
      return use_memory(message, ticket, TRY(table_.add(region, std::move(file))));
    }
    case VHOST_USER_REM_MEM_REG: {
      const auto region = TRY(payload<VhostUserSingleRegion>(message)).region;
      return use_memory(message, ticket, TRY(table_.remove(region)));
    }
    default:
      return use_memory(message, ticket, TRY(set_mem_table(message)));
  }
}

Result<GuestMemory> VhostUserSession::set_mem_table(VhostUserMessage& message) {
  VhostUserMemoryHeader header;
  const auto& bytes = message.payload;
  if (bytes.size() < sizeof(header)) return fail(Error::invalid("its payload has no header"));
  std::memcpy(&header, bytes.data(), sizeof(header));
  std::array<VhostUserMemoryRegion, kVhostUserMaxRegions> regions;
  if (header.num_regions > regions.size()) {
    return fail(Error::invalid(
        format_text("{} memory regions, {} can be", header.num_regions, regions.size())));
  }
  // Some front-ends always send room for all.
  const size_t size = header.num_regions * sizeof(VhostUserMemoryRegion);
  if (bytes.size() - sizeof(header) < size) {
    return fail(Error::invalid(format_text("{} memory regions in a payload of {} bytes",
                                           header.num_regions, bytes.size())));
  }
  if (size > 0) std::memcpy(regions.data(), bytes.data() + sizeof(header), size);
  return table_.set(std::span(regions).first(header.num_regions), std::move(message.fds));
}

Result<VhostUserSession::Answer> VhostUserSession::use_memory(const VhostUserMessage& message,
                                                              Ticket ticket, GuestMemory memory) {
  // Where a ring's place changes it waits, so that it never runs with one half of the change.
  for (uint16_t index = 0; index < rings_.size(); ++index) {
    const Ring& ring = rings_[index];
    if (!ring.user || translate(*ring.user) == ring.addresses) continue;
    device_.host.set_vring_enable(index, false);
  }
  // The callback keeps what was used before, until nothing does any more.
  auto former = std::shared_ptr<GuestMemory>(
      std::exchange(device_.memory, std::make_unique<GuestMemory>(std::move(memory))));
  device_.host.set_memory(*device_.memory, [former = std::move(former),
                                            done = acknowledge_later(message, ticket)] { done(); });
  update_rings();
  return Later{};
}

Result<VhostUserSession::Answer> VhostUserSession::get_inflight(const VhostUserMessage& message) {
  VhostUserInflight description = TRY(inflight_payload(message));
  if (description.num_queues > rings_.size()) {
    return fail(Error::invalid(
        format_text("{} queues: there are {}", description.num_queues, rings_.size())));
  }
  Fd file = TRY(InflightRegion::create(description));
  VhostUserMessage answer = reply(message, description);
  answer.fds.push_back(std::move(file));
  return answer;
}

Result<VhostUserSession::Answer> VhostUserSession::set_inflight(VhostUserMessage& message) {
  const VhostUserInflight description = TRY(inflight_payload(message));
  inflight_ = TRY(InflightRegion::map(description, TRY(only_fd(message))));
  TRY(use_inflight());
  return Ack{};
}

Result<void> VhostUserSession::use_inflight() {
  if (!inflight_) return {};
  const size_t queues = std::min<size_t>(inflight_->queues(), rings_.size());
  for (uint16_t index = 0; index < queues; ++index) {
    device_.host.set_vring_inflight(index, TRY(InflightRegion::queue(inflight_, index)));
  }
  return {};
}

}  // namespace crosvm
