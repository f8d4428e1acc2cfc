#include "vhost/vhost_user_handshake.h"

#include <linux/virtio_config.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

// No guest has that much room for a device; sums of such sizes do not wrap around.
constexpr uint64_t kMostSharedMemory = uint64_t{1} << 48;

Error bad(std::string what) { return Error(std::errc::bad_message, std::move(what)); }

}  // namespace

VhostUserMessage vhost_user_get_config(size_t length) {
  auto message = vhost_user_message(
      VHOST_USER_GET_CONFIG,
      VhostUserConfigHeader{.offset = 0, .size = static_cast<uint32_t>(length), .flags = 0});
  message.payload.resize(message.payload.size() + length);
  return message;
}

Result<std::optional<std::vector<std::byte>>> vhost_user_config_of(const VhostUserMessage& answer,
                                                                   size_t length) {
  if (answer.payload.empty()) return std::nullopt;
  VhostUserConfigHeader header;
  // Refusals come in three forms: nothing, a header alone, a header that says 0.
  if (answer.payload.size() >= sizeof(header)) {
    std::memcpy(&header, answer.payload.data(), sizeof(header));
    const size_t bytes = answer.payload.size() - sizeof(header);
    if (header.size == 0 || bytes == 0) return std::nullopt;
    if (bytes == length && header.size == length && header.offset == 0) {
      return std::vector(answer.payload.begin() + sizeof(header), answer.payload.end());
    }
  }
  return fail(bad(format_text("GET_CONFIG of {} bytes was answered with {} bytes in all", length,
                              answer.payload.size())));
}

Result<std::vector<uint64_t>> vhost_user_shared_memory_of(const VhostUserMessage& answer) {
  const auto& bytes = answer.payload;
  VhostUserShmemHeader header;
  if (bytes.size() < sizeof(header) || bytes.size() % sizeof(uint64_t) != 0) {
    return fail(bad(format_text("GET_SHMEM_CONFIG was answered with {} bytes", bytes.size())));
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  // Some back-ends send as many sizes as there are, others room for all that can be.
  std::vector<uint64_t> sizes((bytes.size() - sizeof(header)) / sizeof(uint64_t));
  if (header.num_regions > sizes.size() || sizes.size() > kVhostUserMaxShmemRegions) {
    return fail(bad(
        format_text("{} shared memory regions with {} sizes", header.num_regions, sizes.size())));
  }
  if (sizes.empty()) return sizes;
  std::memcpy(sizes.data(), bytes.data() + sizeof(header), sizes.size() * sizeof(uint64_t));
  while (!sizes.empty() && sizes.back() == 0) sizes.pop_back();
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  for (const uint64_t size : sizes) {
    if (size % page != 0 || size > kMostSharedMemory) {
      return fail(bad(format_text("a shared memory region of {:#x} bytes", size)));
    }
  }
  return sizes;
}

VhostUserHandshake::VhostUserHandshake(VhostUserConversation& conversation,
                                       std::vector<size_t> config_lengths, bool shared_memory)
    : conversation_(conversation),
      config_lengths_(std::move(config_lengths)),
      shared_memory_(shared_memory) {}

Result<void> VhostUserHandshake::ask(uint32_t request,
                                     std::function<Result<void>(uint64_t)> on_answer) {
  ++outstanding_;
  auto take = [this, request,
               on_answer = std::move(on_answer)](VhostUserMessage answer) -> Result<void> {
    const auto value = answer.payload_as<uint64_t>();
    if (!value) {
      return fail(bad(format_text("vhost-user request {} was answered with {} bytes instead of 8",
                                  request, answer.payload.size())));
    }
    TRY(on_answer(*value));
    return one_less();
  };
  return conversation_.ask(vhost_user_message(request), std::move(take));
}

Result<void> VhostUserHandshake::one_less() {
  if (--outstanding_ != 0 || done_) return {};
  done_ = true;
  return on_done_ ? on_done_() : Result<void>();
}

Result<void> VhostUserHandshake::begin(std::function<Result<void>()> on_done) {
  on_done_ = std::move(on_done);
  TRY(conversation_.tell(vhost_user_message(VHOST_USER_SET_OWNER)));
  return ask(VHOST_USER_GET_FEATURES,
             [this](uint64_t features) { return have_features(features); });
}

Result<void> VhostUserHandshake::have_features(uint64_t features) {
  peer_.features = features;
  if ((features & vhost_user_bit(VIRTIO_F_VERSION_1)) == 0) {
    return fail(
        Error(std::errc::not_supported,
              format_text("the vhost-user back-end's features {:#x} lack "
                          "VIRTIO_F_VERSION_1: it serves legacy drivers alone; use one that "
                          "knows virtio 1",
                          features)));
  }
  if (!peer_.negotiates()) return {};
  return ask(VHOST_USER_GET_PROTOCOL_FEATURES,
             [this](uint64_t offered) { return have_protocol_features(offered); });
}

Result<void> VhostUserHandshake::have_protocol_features(uint64_t offered) {
  peer_.protocol_features = agreed(offered);
  TRY(conversation_.tell(
      vhost_user_message(VHOST_USER_SET_PROTOCOL_FEATURES, peer_.protocol_features)));
  if (peer_.has(VHOST_USER_PROTOCOL_F_REPLY_ACK)) conversation_.expect_acknowledgements();
  if (peer_.has(VHOST_USER_PROTOCOL_F_BACKEND_REQ)) TRY(open_requests());
  if (peer_.has(VHOST_USER_PROTOCOL_F_MQ)) {
    TRY(ask(VHOST_USER_GET_QUEUE_NUM, [this](uint64_t queues) -> Result<void> {
      peer_.queues = queues;
      return {};
    }));
  }
  if (peer_.has(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
    TRY(ask(VHOST_USER_GET_MAX_MEM_SLOTS, [this](uint64_t slots) -> Result<void> {
      peer_.mem_slots = slots;
      return {};
    }));
  }
  if (peer_.shares_memory()) TRY(ask_shared_memory());
  if (!peer_.has(VHOST_USER_PROTOCOL_F_CONFIG)) return {};
  return ask_config();
}

uint64_t VhostUserHandshake::agreed(uint64_t offered) const {
  uint64_t agreed = offered & kProtocolFeatures;
  // It is of no use without a channel to ask on.
  if (!shared_memory_ || (offered & vhost_user_bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ)) == 0) {
    return agreed;
  }
  agreed |= offered & kSharingFeatures;
  if ((offered & vhost_user_bit(VHOST_USER_PROTOCOL_F_SHMEM)) == 0) {
    agreed |= offered & vhost_user_bit(VHOST_USER_PROTOCOL_F_SHMEM_OTHER);
  }
  return agreed;
}

Result<void> VhostUserHandshake::ask_shared_memory() {
  ++outstanding_;
  return conversation_.ask(vhost_user_message(VHOST_USER_GET_SHMEM_CONFIG),
                           [this](const VhostUserMessage& answer) -> Result<void> {
                             peer_.shared_memory = TRY(vhost_user_shared_memory_of(answer));
                             return one_less();
                           });
}

Result<void> VhostUserHandshake::open_requests() {
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return fail(Error::from_errno("making", "a socket for the requests of a vhost-user back-end"));
  }
  Fd ours(pair[0]);
  auto message = vhost_user_message(VHOST_USER_SET_BACKEND_REQ_FD);
  message.fds.emplace_back(pair[1]);
  requests_ = std::move(ours);
  // One that refuses sends no requests.
  ++outstanding_;
  return conversation_.order(
      std::move(message), [](const std::string&) {}, [this] { return one_less(); });
}

Result<void> VhostUserHandshake::ask_config() {
  if (next_length_ == config_lengths_.size() || config_lengths_[next_length_] == 0) return {};
  const size_t length = config_lengths_[next_length_++];
  ++outstanding_;
  return conversation_.ask(vhost_user_get_config(length), [this, length](VhostUserMessage answer) {
    return have_config(length, std::move(answer));
  });
}

Result<void> VhostUserHandshake::have_config(size_t length, VhostUserMessage answer) {
  auto config = TRY(vhost_user_config_of(answer, length));
  if (config) {
    peer_.config = std::move(*config);
  } else if (next_length_ < config_lengths_.size()) {
    TRY(ask_config());
  } else {
    return fail(
        bad(format_text("the vhost-user back-end refuses to tell the device configuration, "
                        "asked for {} bytes at last",
                        length)));
  }
  return one_less();
}

}  // namespace crosvm
