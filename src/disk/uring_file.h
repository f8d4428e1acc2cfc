#pragma once

#include <memory>
#include <vector>

#include "disk/async_file.h"
#include "disk/uring_queue.h"

namespace crosvm {

/// An AsyncFile on an io_uring, which it may share with others of the same disk.
class UringFile : public AsyncFile, private UringQueue::User {
 public:
  UringFile(std::shared_ptr<UringQueue> ring, std::shared_ptr<const Fd> file);
  ~UringFile() override;

  void queue(const FileOperation& operation) override;
  void submit() override { ring_->submit(); }

 private:
  bool submit_rest() override;
  void batch_ended() override { tell_batch(); }
  void queue_on_thread(const FileOperation& operation);

  const std::shared_ptr<UringQueue> ring_;
  const std::shared_ptr<const Fd> file_;
  std::unique_ptr<AsyncFile> threads_;  // for what io_uring cannot do; made when needed
  std::vector<FileDone*> refused_;      // where there is no thread
};

}  // namespace crosvm
