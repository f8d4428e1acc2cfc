#include "disk/uring_file.h"

#include <utility>

#include "base/log.h"
#include "disk/threaded_file.h"

namespace crosvm {

UringFile::UringFile(std::shared_ptr<UringQueue> ring, std::shared_ptr<const Fd> file)
    : ring_(std::move(ring)), file_(std::move(file)) {
  ring_->join(*this);
}

UringFile::~UringFile() { ring_->leave(*this); }

void UringFile::queue(const FileOperation& operation) {
  switch (operation.kind) {
    case FileOperation::Kind::kDiscardBlocks:
    case FileOperation::Kind::kTruncate:
    case FileOperation::Kind::kSeek:
      return queue_on_thread(operation);
    default:
      return ring_->queue(*file_, operation);
  }
}

void UringFile::queue_on_thread(const FileOperation& operation) {
  if (!threads_) {
    auto made = ThreadedFile::create(ring_->loop(), file_);
    if (!made) {
      if (ring_->limit().allows()) log::warn("what io_uring cannot do: {}", made.error().what());
      return refused_.push_back(operation.done);
    }
    threads_ = std::move(*made);
    threads_->on_batch([this] {
      submit();
      tell_batch();
    });
  }
  threads_->queue(operation);
}

bool UringFile::submit_rest() {
  if (threads_) threads_->submit();
  if (refused_.empty()) return false;
  for (FileDone* done : std::exchange(refused_, {})) done->file_done(-EAGAIN);
  return true;
}

}  // namespace crosvm
