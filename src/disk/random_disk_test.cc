// Random requests to images of every format, in files and several at a time, do what they do to a
// flat array of bytes; of raw and qcow2 images by direct I/O, too, with requests that share blocks.
// $CROSVM_TEST_FULL: 300 times 10,000 requests each. $CROSVM_TEST_REQUESTS and $CROSVM_TEST_SEED:
// so many of all formats together, from that seed on.

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "disk/composite/composite_descriptor.h"
#include "disk/disk_driver.h"
#include "disk/flat_model.h"
#include "disk/image_file.h"
#include "disk/image_names.h"
#include "disk/open_disk.h"
#include "disk/temporary_file.h"
#include "disk/tools/check_image.h"
#include "disk/tools/convert_image.h"

namespace crosvm {
namespace {

using test::DiskDriver;
using test::FlatModel;
using test::TemporaryFolder;
using Kind = DiskRequest::Kind;
using Bytes = std::vector<std::byte>;

enum class Image { kRaw, kRawDirect, kQcow2, kQcow2Direct, kComposite, kZstd, kAndroidSparse };
constexpr std::array kNames = {"Raw",       "RawDirect", "Qcow2",        "Qcow2Direct",
                               "Composite", "Zstd",      "AndroidSparse"};

std::optional<uint64_t> number_from(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

/// One image, its model, and what is on its way.
class RandomDisk {
 public:
  RandomDisk(Image image, uint64_t seed) : image_(image), random_(seed) {
    // What direct I/O wants of a size: whole blocks.
    const uint64_t unit = is_direct() ? kBlock : 512;
    Bytes bytes(unit * (1 + below((1 << 20) / unit)));
    for (size_t at = 0; at < bytes.size(); at += 1 + below(20'000)) {
      const size_t length = std::min<size_t>(bytes.size() - at, below(9000));
      for (size_t i = 0; i < length; ++i) bytes[at + i] = static_cast<std::byte>(random_());
      at += length;
    }
    model_.start(std::move(bytes));
    // Blocks of the host may be as large as that; where they are not, it is held to them all the
    // same.
    has_large_blocks_ = below(2) == 0;
    has_ring_ = below(2) == 0;
  }

  void run(uint64_t requests) {
    make();
    open();
    while (begun_ < requests && !testing::Test::HasFatalFailure()) step();
    if (testing::Test::HasFatalFailure()) return;
    settle();
    open();
    settle();
    disk_.reset();
    if (image_ != Image::kQcow2 && image_ != Image::kQcow2Direct) return;
    const auto checked = check_image({.path = folder_.path("disk")});
    ASSERT_TRUE(checked) << checked.error().what();
    EXPECT_EQ(checked->errors + checked->leaks, 0u) << checked->messages.front();
  }

 private:
  static constexpr uint64_t kBlock = 4096;
  static constexpr size_t kMostRunning = 8;

  struct Running final : DiskRequest {
    void disk_done(int error) override {
      EXPECT_EQ(result, -1) << "told twice";
      result = error;
    }
    Bytes bytes;
    int result = -1;
  };

  uint64_t below(uint64_t limit) { return random_() % limit; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(model_.bytes().data()), model_.size()};
  }
  bool is_direct() const { return image_ == Image::kRawDirect || image_ == Image::kQcow2Direct; }
  bool is_read_only() const { return image_ == Image::kZstd || image_ == Image::kAndroidSparse; }

  void make() {
    if (image_ == Image::kComposite) return make_composite();
    folder_.write("start.raw", text());
    const ImageFormat format = image_ == Image::kZstd            ? ImageFormat::kZstd
                               : image_ == Image::kAndroidSparse ? ImageFormat::kAndroidSparse
                               : image_ == Image::kRaw || image_ == Image::kRawDirect
                                   ? ImageFormat::kRaw
                                   : ImageFormat::kQcow2;
    ConvertPlan plan{.source = folder_.path("start.raw"),
                     .target = folder_.path("disk"),
                     .source_format = ImageFormat::kRaw,
                     .format = format};
    if (format == ImageFormat::kQcow2) {
      plan.cluster_size = kBlock << below(5);
      if (below(2) == 0) plan.compression = Qcow2Compression::kZlib;
    }
    const auto made = convert_image(plan);
    ASSERT_TRUE(made) << made.error().what();
  }

  /// Of up to five parts, of any number of sectors.
  void make_composite() {
    CompositeDescriptor disk{.length = model_.size(), .components = {}};
    for (uint64_t at = 0; at < model_.size();) {
      const uint64_t left = model_.size() - at;
      const uint64_t length = disk.components.size() == 4 ? left : 512 * (1 + below(left / 512));
      const std::string name = "part" + std::to_string(disk.components.size());
      folder_.write(name, text().substr(at, length));
      disk.components.push_back({.path = name, .offset = at, .writable = true});
      at += length;
    }
    folder_.write("disk", composite_bytes(disk));
  }

  std::optional<IoUring> ring() const {
    if (!has_ring_) return std::nullopt;
    auto ring = IoUring::create(16);
    if (!ring) return std::nullopt;
    return std::move(*ring);
  }

  void open() {
    disk_.reset();
    const std::string path = folder_.path("disk");
    auto file = open_image_file(path, {.read_only = is_read_only(), .direct = is_direct()});
    ASSERT_TRUE(file) << file.error().what();
    auto fd = std::make_shared<const Fd>(std::move(*file));
    if (image_ == Image::kRawDirect && has_large_blocks_) return open_large_blocks(std::move(fd));
    ImageNames names({.path = path, .allowed = {}, .read_only = is_read_only()});
    auto files = AsyncFiles::create(driver_.loop(), ring());
    ASSERT_TRUE(files);
    auto disk = open_disk(std::move(fd),
                          {.object = path,
                           .read_only = is_read_only(),
                           .format = image_ == Image::kRaw || image_ == Image::kRawDirect
                                         ? std::optional(ImageFormat::kRaw)
                                         : std::nullopt},
                          *files, &names);
    ASSERT_TRUE(disk) << disk.error().what();
    disk_ = std::move(*disk);
  }

  void open_large_blocks(std::shared_ptr<const Fd> fd) {
    auto facts = inspect_raw_image(*fd, "disk");
    ASSERT_TRUE(facts) << facts.error().what();
    facts->alignment = {.memory = kBlock, .offset = kBlock};
    auto file = make_async_file(driver_.loop(), fd, ring());
    ASSERT_TRUE(file);
    auto disk = RawDisk::create(std::move(*file), *facts, {}, "disk");
    ASSERT_TRUE(disk) << disk.error().what();
    disk_ = std::move(*disk);
  }

  void step() {
    const uint64_t what = below(100);
    if (what == 0 && below(4) == 0) return resize();
    if (running_.size() >= kMostRunning || what < 15) return reap(false);
    if (what < 18) return begin(Kind::kFlush, 0, 0);
    // What is less than a sector, at the start of a part that was found to be raw, could turn that
    // into another format, and is refused.
    const uint64_t unit = image_ == Image::kComposite ? 512 : 1;
    const uint64_t offset = below(model_.size()) / unit * unit;
    // Mostly less than a block, so that requests meet in one.
    uint64_t length = unit * (1 + below((below(3) == 0 ? 70'000 : 3000) / unit));
    length = std::min(length, model_.size() - offset);
    if (overlaps(offset, length)) return reap(false);
    if (what < 50 || is_read_only()) {
      return begin(what % 10 == 0 ? Kind::kExtent : Kind::kRead, offset, length);
    }
    if (what < 80) return begin(Kind::kWrite, offset, length);
    begin(what < 90 ? Kind::kWriteZeroes : Kind::kDiscard, offset, length);
  }

  bool overlaps(uint64_t offset, uint64_t length) const {
    return std::ranges::any_of(running_, [&](const auto& request) {
      return offset < request->offset + request->length && request->offset < offset + length;
    });
  }

  void begin(Kind kind, uint64_t offset, uint64_t length) {
    ++begun_;
    running_.push_back(std::make_unique<Running>());
    Running& request = *running_.back();
    request.kind = kind;
    request.offset = offset;
    request.length = length;
    request.may_unmap = below(2) == 0;
    if (kind == Kind::kRead || kind == Kind::kWrite) {
      request.bytes.assign(length, std::byte{'?'});
      if (kind == Kind::kWrite) {
        for (std::byte& byte : request.bytes) byte = static_cast<std::byte>(random_());
      }
      scatter(request);
    }
    disk_->start(request);
    if (below(3) != 0) disk_->submit();
  }

  void scatter(Running& request) {
    std::span<std::byte> rest = request.bytes;
    while (!rest.empty()) {
      const bool all = request.buffers.size() == 4 || below(2) == 0;
      const size_t taken = all ? rest.size() : below(rest.size() + 1);
      request.buffers.push_back(GuestSlice::over(rest.first(taken)));
      rest = rest.subspan(taken);
    }
  }

  /// What has ended; or all.
  void reap(bool all) {
    disk_->submit();
    do {
      for (auto& request : running_) {
        if (request->result >= 0) ended(*request);
        if (testing::Test::HasFatalFailure()) return;
      }
      std::erase_if(running_, [](const auto& request) { return request->result >= 0; });
      if (running_.empty()) return;
      const auto most = all ? std::chrono::seconds(10) : std::chrono::seconds(1);
      ASSERT_TRUE(driver_.loop().run_once(most));
    } while (all || running_.size() >= kMostRunning);
  }

  void ended(const Running& request) {
    ASSERT_EQ(request.result, 0) << "kind " << static_cast<int>(request.kind);
    expect_right(model_.ended(request, request.bytes));
  }

  static void expect_right(std::optional<uint64_t> wrong) {
    ASSERT_FALSE(wrong) << "byte " << *wrong;
  }

  /// All of it is as it should be; what discards have left counts from now on.
  void settle() {
    reap(true);
    ASSERT_TRUE(running_.empty());
    ASSERT_EQ(disk_->size(), model_.size());
    ASSERT_EQ(driver_.run(*disk_, Kind::kFlush), 0);
    const std::string all = driver_.read(*disk_, 0, model_.size());
    ASSERT_EQ(all.size(), model_.size());
    const auto bytes = std::as_bytes(std::span(all));
    expect_right(model_.settle({bytes.begin(), bytes.end()}));
  }

  void resize() {
    if (is_read_only() || image_ == Image::kComposite) return;
    settle();
    const uint64_t unit = is_direct() ? kBlock : 512;
    const uint64_t size = unit * (1 + below((1 << 20) / unit));
    std::optional<int> error;
    disk_->resize(size, [&](const Result<void>& done) { error = errno_of(done); });
    while (!error) ASSERT_TRUE(driver_.loop().run_once(std::chrono::seconds(10)));
    ASSERT_EQ(*error, 0);
    model_.resize(size);
  }

  const Image image_;
  std::mt19937_64 random_;
  TemporaryFolder folder_;
  DiskDriver driver_;
  bool has_large_blocks_;
  bool has_ring_;
  FlatModel model_;
  uint64_t begun_ = 0;
  std::vector<std::unique_ptr<Running>> running_;
  std::unique_ptr<Disk> disk_;  // goes first
};

class RandomDiskTest : public testing::TestWithParam<Image> {};

TEST_P(RandomDiskTest, RandomRequestsDoWhatAFlatModelDoes) {
  if (GetParam() == Image::kRawDirect || GetParam() == Image::kQcow2Direct) {
    const auto probe = open_path(test::TemporaryFile(4096).path(), O_RDWR | O_DIRECT);
    if (!probe) GTEST_SKIP() << "no direct I/O: " << probe.error().what();
  }
  const bool is_full = std::getenv("CROSVM_TEST_FULL") != nullptr;
  const auto asked = number_from("CROSVM_TEST_REQUESTS");
  const uint64_t first = number_from("CROSVM_TEST_SEED").value_or(0);
  uint64_t each = is_full ? 10'000 : 300;
  uint64_t images = is_full ? 300 : 6;
  if (asked) images = (*asked / kNames.size() + each - 1) / each;
  for (uint64_t seed = first; seed < first + images && !HasFailure(); ++seed) {
    SCOPED_TRACE("CROSVM_TEST_SEED=" + std::to_string(seed));
    RandomDisk(GetParam(), seed).run(each);
  }
  std::printf("random: %s requests, seeds from %s\n", std::to_string(images * each).c_str(),
              std::to_string(first).c_str());
}

INSTANTIATE_TEST_SUITE_P(Images, RandomDiskTest,
                         testing::Values(Image::kRaw, Image::kRawDirect, Image::kQcow2,
                                         Image::kQcow2Direct, Image::kComposite, Image::kZstd,
                                         Image::kAndroidSparse),
                         [](const auto& info) {
                           return std::string(kNames[static_cast<size_t>(info.param)]);
                         });

}  // namespace
}  // namespace crosvm
