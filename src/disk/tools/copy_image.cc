#include "disk/tools/copy_image.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "base/format.h"
#include "disk/tools/write_granules.h"

namespace crosvm {
namespace {

constexpr uint64_t kReadBytes = 1 << 20;
constexpr size_t kReadsInFlight = 8;
constexpr auto kPatience = std::chrono::seconds(1);

/// Runs ahead of the target by a few reads. What lies between these it asks the disk about, so that
/// holes are neither read nor looked at.
class Copy {
 public:
  Copy(ToolImage& image, const std::string& object, ImageTarget& target, ToolProgress& progress)
      : disk_(image.disk()),
        loop_(image.loop()),
        object_(object),
        target_(target),
        progress_(progress),
        granule_(target.granule()),
        read_bytes_(std::max(kReadBytes, granule_)) {}
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;
  ~Copy() {
    while (in_flight_ > 0 && loop_.run_once(kPatience)) {
    }
  }

  Result<void> run() {
    while (written_ < disk_.size()) {
      begin_more();
      if (!runs_.empty() && runs_.front()->is_done) {
        TRY(write_front());
        TRY(progress_.tell(written_, disk_.size()));
      } else if (in_flight_ > 0) {
        TRY(loop_.run_once(kPatience));
        TRY(progress_.tell(written_, disk_.size()));
      }
    }
    TRY(target_.finish());
    return progress_.tell(written_, disk_.size());
  }

 private:
  enum class What : uint8_t { kData, kZero, kAbsent };
  /// A piece of the disk, in its order.
  struct Run final : DiskRequest {
    explicit Run(Copy& copy) : copy(copy) {}
    void disk_done(int result) override {
      --copy.in_flight_;
      error = result;
      is_done = true;
    }
    Copy& copy;
    What what = What::kData;
    std::vector<std::byte> bytes;
    int error = 0;
    bool is_done = false;
  };
  struct Question final : DiskRequest {
    explicit Question(Copy& copy) : copy(copy) {}
    void disk_done(int result) override {
      --copy.in_flight_;
      error = result;
      is_answered = true;
      is_asked = false;
    }
    Copy& copy;
    int error = 0;
    bool is_asked = false;
    bool is_answered = false;
  };

  void begin_more() {
    while (!question_.is_asked && runs_.size() < kReadsInFlight && next_ < disk_.size()) {
      if (next_ < data_end_) {
        read_next();
      } else if (question_.is_answered) {
        take_answer();
      } else {
        ask();
      }
    }
    disk_.submit();
  }

  void ask() {
    question_.kind = DiskRequest::Kind::kExtent;
    question_.offset = next_;
    question_.length = disk_.size() - next_;
    question_.extent = {};
    question_.is_asked = true;
    ++in_flight_;
    disk_.start(question_);
    disk_.submit();
  }

  /// What the disk says reaches where it says, but the target's granules are whole: one that is in
  /// part something else is read.
  void take_answer() {
    question_.is_answered = false;
    const DiskRequest::Extent& extent = question_.extent;
    What what = What::kData;
    if (question_.error == 0) {
      if (target_.has_backing() && !extent.is_present) {
        what = What::kAbsent;
      } else if (extent.is_zero) {
        what = What::kZero;
      }
    }
    const uint64_t left = disk_.size() - next_;
    const uint64_t length =
        question_.error == 0 ? std::clamp<uint64_t>(extent.length, 1, left) : left;
    const uint64_t end = next_ + length;
    const uint64_t whole_end = length == left ? end : end / granule_ * granule_;
    if (what != What::kData && whole_end > next_) return skip(what, whole_end);
    const uint64_t granules = (end + granule_ - 1) / granule_;
    data_end_ = what == What::kData ? std::min(disk_.size(), granules * granule_)
                                    : std::min(disk_.size(), next_ + granule_);
  }

  void skip(What what, uint64_t end) {
    auto run = std::make_unique<Run>(*this);
    run->what = what;
    run->offset = next_;
    run->length = end - next_;
    run->is_done = true;
    next_ = end;
    runs_.push_back(std::move(run));
  }

  void read_next() {
    auto run = std::make_unique<Run>(*this);
    run->offset = next_;
    run->length = std::min(data_end_ - next_, read_bytes_);
    if (!spare_.empty()) {
      run->bytes = std::move(spare_.back());
      spare_.pop_back();
    }
    run->bytes.resize(run->length);
    run->buffers.push_back(GuestSlice::over(run->bytes));
    next_ += run->length;
    ++in_flight_;
    disk_.start(*run);
    runs_.push_back(std::move(run));
  }

  Result<void> write_front() {
    const std::unique_ptr<Run> run = std::move(runs_.front());
    runs_.pop_front();
    if (run->error != 0) {
      return fail(
          Error::from_errno(format_text("reading byte {} of", run->offset), object_, run->error));
    }
    written_ = run->offset + run->length;
    if (run->what == What::kZero) return target_.write_zeroes(run->offset, run->length);
    if (run->what == What::kAbsent) return target_.leave_out(run->offset, run->length);
    TRY(write_granules(target_, run->offset, run->bytes));
    spare_.push_back(std::move(run->bytes));
    return {};
  }

  Disk& disk_;
  EventLoop& loop_;
  const std::string& object_;
  ImageTarget& target_;
  ToolProgress& progress_;
  const uint64_t granule_;
  const uint64_t read_bytes_;
  uint64_t next_ = 0;      // of the disk, that is not begun
  uint64_t data_end_ = 0;  // up to here it is known to be data
  uint64_t written_ = 0;
  size_t in_flight_ = 0;
  std::deque<std::unique_ptr<Run>> runs_;
  Question question_{*this};
  std::vector<std::vector<std::byte>> spare_;
};

class NoTarget : public ImageTarget {
 public:
  uint64_t granule() const override { return 4096; }
  Result<void> write(uint64_t, std::span<const std::byte>) override { return {}; }
  Result<void> write_zeroes(uint64_t, uint64_t) override { return {}; }
  Result<void> finish() override { return {}; }
};

}  // namespace

Result<void> copy_image(ToolImage& image, const std::string& object, ImageTarget& target,
                        ToolProgress& progress) {
  return Copy(image, object, target, progress).run();
}

Result<void> read_through(ToolImage& image, const std::string& object, ToolProgress& progress) {
  NoTarget nowhere;
  return copy_image(image, object, nowhere, progress);
}

}  // namespace crosvm
