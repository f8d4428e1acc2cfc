#include "vhost/vhost_user_requests.h"

#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

VhostUserRequests::News news_of(uint32_t request) {
  using News = VhostUserRequests::News;
  switch (request) {
    case VHOST_USER_BACKEND_CONFIG_CHANGE_MSG:
      return News::kConfigChanged;
    case VHOST_USER_BACKEND_VRING_ERR:
      return News::kRingFailed;
    case VHOST_USER_BACKEND_SHMEM_MAP:
    case VHOST_USER_BACKEND_SHMEM_UNMAP:
      return News::kSharedMemory;
    default:
      return News::kUnknown;
  }
}

}  // namespace

Result<VhostUserRequests::News> VhostUserRequests::take_one() {
  TRY(channel_.flush());
  auto message = TRY(channel_.receive());
  if (!message) return News::kNothing;
  if (message->is_reply()) {
    return fail(Error(std::errc::bad_message,
                      format_text("answer {} from a vhost-user back-end that nothing was asked on "
                                  "this channel",
                                  message->request)));
  }
  News news = news_of(message->request);
  if (news == News::kSharedMemory && !serve_memory_) news = News::kUnknown;
  bool good = news != News::kUnknown;
  if (news == News::kSharedMemory) good = serve_memory_(*message);
  if (message->needs_reply()) {
    auto answer = vhost_user_message(message->request, uint64_t{good ? 0u : 1u});
    answer.flags = kVhostUserReply;
    TRY(channel_.send(std::move(answer)));
  }
  return news;
}

}  // namespace crosvm
