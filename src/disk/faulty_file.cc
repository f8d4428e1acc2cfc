#include "disk/faulty_file.h"

#include <algorithm>
#include <set>

namespace crosvm {
namespace {

using Kind = FileOperation::Kind;

uint64_t bytes_of(const FileOperation& operation) {
  uint64_t bytes = operation.length;
  for (const iovec& buffer : operation.buffers) bytes += buffer.iov_len;
  return bytes;
}

bool fits(const Fault& fault, const FileOperation& operation, uint64_t number) {
  if (fault.kind && *fault.kind != operation.kind) return false;
  if (fault.number && *fault.number != number) return false;
  uint64_t bytes = std::max<uint64_t>(bytes_of(operation), 1);
  return operation.offset < fault.offset ? fault.offset - operation.offset < bytes
                                         : operation.offset - fault.offset < fault.length;
}

class FaultyFile : public AsyncFile {
 public:
  FaultyFile(EventLoop& loop, FaultPlan& plan, std::unique_ptr<AsyncFile> file)
      : loop_(loop), plan_(plan), file_(std::move(file)) {
    file_->on_batch([this] { tell_batch(); });
  }
  ~FaultyFile() override {
    for (EventLoop::TimerId timer : timers_) loop_.cancel(timer);
  }

  void queue(const FileOperation& operation) override {
    std::optional<Fault> fault = plan_.next(operation);
    if (!fault) return file_->queue(operation);
    if (fault->error != 0) return later(*fault, operation.done, -fault->error);
    if (fault->at_most == 0U) return later(*fault, operation.done, 0);
    FileOperation cut = fault->at_most ? shorten(operation, *fault->at_most) : operation;
    if (fault->delay.count() == 0) return file_->queue(cut);
    after(fault->delay, [this, cut] {
      file_->queue(cut);
      file_->submit();
    });
  }
  void submit() override { file_->submit(); }

 private:
  /// Not before the next turn of the loop: `queue` tells nobody.
  void later(const Fault& fault, FileDone* done, int64_t result) {
    after(fault.delay, [this, done, result] {
      done->file_done(result);
      file_->submit();
      tell_batch();
    });
  }
  template <class Work>
  void after(std::chrono::milliseconds delay, Work work) {
    auto id = std::make_shared<EventLoop::TimerId>();
    *id = loop_.after(delay, [this, id, work] {
      timers_.erase(*id);
      work();
    });
    timers_.insert(*id);
  }
  FileOperation shorten(FileOperation operation, uint64_t most) {
    auto& kept = shortened_.emplace_back(
        std::make_unique<std::vector<iovec>>(operation.buffers.begin(), operation.buffers.end()));
    size_t used = 0;
    for (; used < kept->size() && most > 0; ++used) {
      iovec& buffer = (*kept)[used];
      buffer.iov_len = std::min<uint64_t>(buffer.iov_len, most);
      most -= buffer.iov_len;
    }
    operation.buffers = std::span(*kept).first(used);
    return operation;
  }

  EventLoop& loop_;
  FaultPlan& plan_;
  std::set<EventLoop::TimerId> timers_;
  std::vector<std::unique_ptr<std::vector<iovec>>> shortened_;
  std::unique_ptr<AsyncFile> file_;  // goes first: it may hold the vectors
};

}  // namespace

void FaultPlan::add(const Fault& fault) {
  std::lock_guard lock(mutex_);
  faults_.push_back(fault);
}

void FaultPlan::clear() {
  std::lock_guard lock(mutex_);
  faults_.clear();
}

std::optional<Fault> FaultPlan::next(const FileOperation& operation) {
  std::lock_guard lock(mutex_);
  uint64_t number = operations_++;
  auto found = std::ranges::find_if(
      faults_, [&](const Fault& fault) { return fits(fault, operation, number); });
  if (found == faults_.end()) return std::nullopt;
  return *found;
}

uint64_t FaultPlan::operations() const {
  std::lock_guard lock(mutex_);
  return operations_;
}

std::unique_ptr<AsyncFile> make_faulty_file(EventLoop& loop, FaultPlan& plan,
                                            std::unique_ptr<AsyncFile> file) {
  return std::make_unique<FaultyFile>(loop, plan, std::move(file));
}

}  // namespace crosvm
