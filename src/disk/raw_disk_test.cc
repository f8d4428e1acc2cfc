#include "disk/raw_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <random>

#include "base/format.h"
#include "disk/faulty_file.h"
#include "disk/temporary_file.h"

namespace crosvm {
namespace {

using test::TemporaryFile;
using testing::HasSubstr;
using Kind = DiskRequest::Kind;
using FileKind = FileOperation::Kind;

constexpr uint64_t kDiskBytes = 8 << 20;
constexpr uint64_t kRamBytes = 16 << 20;

struct Request final : DiskRequest {
  Request(Kind kind, uint64_t offset, uint64_t length) {
    this->kind = kind;
    this->offset = offset;
    this->length = length;
  }
  void disk_done(int error) override {
    EXPECT_EQ(result, -1) << "told twice";
    result = error;
  }
  int result = -1;  // until it is done
};

enum class Executor { kUring, kThreads };

class RawDiskTest : public ::testing::TestWithParam<Executor> {
 protected:
  void SetUp() override {
    loop_ = std::move(*EventLoop::create());
    RamRange range{.base = {}, .size = kRamBytes};
    memory_.emplace(std::move(*GuestMemory::create(std::span(&range, 1), {})));
    open();
  }
  void TearDown() override { disk_.reset(); }

  void open(const RawDiskOptions& options = {}, int flags = 0) {
    disk_.reset();
    image_ = std::move(*open_path(file_.path(), O_RDWR | flags));
    auto facts = inspect_raw_image(image_, "disk.img");
    ASSERT_TRUE(facts) << facts.error().what();
    auto disk = RawDisk::create(make_faulty_file(*loop_, faults_, make_file()), *facts, options,
                                "disk.img");
    ASSERT_TRUE(disk) << disk.error().what();
    disk_ = std::move(*disk);
    disk_->on_batch([this] { ++batches_; });
  }
  std::unique_ptr<AsyncFile> make_file() {
    std::optional<IoUring> ring;
    if (GetParam() == Executor::kUring) {
      auto made = IoUring::create(8);  // small, so that it is full at times
      if (made) ring = std::move(*made);
    }
    return std::move(*make_async_file(*loop_, borrowed(image_), std::move(ring)));
  }
  void wait_all(std::span<const std::unique_ptr<Request>> requests) {
    auto pending = [](const auto& request) { return request->result < 0; };
    while (std::ranges::any_of(requests, pending)) {
      ASSERT_TRUE(loop_->run_once(std::chrono::seconds(10)));
    }
  }
  int run(Request& request) {
    disk_->start(request);
    disk_->submit();
    while (request.result < 0) EXPECT_TRUE(loop_->run_once(std::chrono::seconds(10)));
    return request.result;
  }
  int run(Kind kind, uint64_t offset, uint64_t length, bool may_unmap = false) {
    Request request(kind, offset, length);
    request.may_unmap = may_unmap;
    return run(request);
  }
  GuestSlice ram(uint64_t at, uint64_t length) { return *memory_->slice(GuestAddress{at}, length); }
  int write(uint64_t offset, std::string_view text, uint64_t ram_at = 0) {
    EXPECT_TRUE(memory_->write_bytes(GuestAddress{ram_at}, std::as_bytes(std::span(text))));
    Request request(Kind::kWrite, offset, text.size());
    request.buffers = {ram(ram_at, text.size())};
    return run(request);
  }
  int read(uint64_t offset, size_t length, std::string& to, uint64_t ram_at = 1 << 20) {
    Request request(Kind::kRead, offset, length);
    request.buffers = {ram(ram_at, length)};
    int result = run(request);
    to.resize(length);
    EXPECT_TRUE(memory_->read_bytes(GuestAddress{ram_at}, std::as_writable_bytes(std::span(to))));
    return result;
  }

  TemporaryFile file_{kDiskBytes};
  FaultPlan faults_;
  std::unique_ptr<EventLoop> loop_;
  std::optional<GuestMemory> memory_;
  Fd image_;
  std::unique_ptr<RawDisk> disk_;
  int batches_ = 0;
};

INSTANTIATE_TEST_SUITE_P(, RawDiskTest, testing::Values(Executor::kUring, Executor::kThreads),
                         [](const auto& info) {
                           return info.param == Executor::kUring ? "Uring" : "Threads";
                         });

TEST_P(RawDiskTest, WritesAndReadsScattered) {
  std::string text(3000, 'x');
  ASSERT_EQ(write(512, text), 0);
  EXPECT_EQ(file_.read(0, 4096), std::string(512, '\0') + text + std::string(584, '\0'));
  file_.write(100, "abcdefgh");
  Request request(Kind::kRead, 100, 8);
  request.buffers = {ram(10, 3), ram(50, 0), ram(99, 5)};
  EXPECT_EQ(run(request), 0);
  EXPECT_EQ(*ram(10, 3).read<uint8_t>(2), 'c');
  EXPECT_EQ(*ram(99, 5).read<uint8_t>(4), 'h');
  EXPECT_GE(batches_, 2);
}

TEST_P(RawDiskTest, MoreBuffersThanOneCallTakes) {
  Request request(Kind::kWrite, 0, 3000);
  std::string text(3000, 'y');
  EXPECT_TRUE(memory_->write_bytes({}, std::as_bytes(std::span(text))));
  for (uint64_t i = 0; i < 3000; ++i) request.buffers.push_back(ram(i, 1));
  EXPECT_EQ(run(request), 0);
  EXPECT_EQ(file_.read(0, 3001), text + '\0');
}

TEST_P(RawDiskTest, RefusesWhatIsNotThere) {
  EXPECT_EQ(run(Kind::kRead, kDiskBytes, 1), EINVAL);
  EXPECT_EQ(run(Kind::kWrite, UINT64_MAX, 2), EINVAL);
  EXPECT_EQ(run(Kind::kDiscard, kDiskBytes - 1, 2), EINVAL);
  EXPECT_EQ(run(Kind::kWriteZeroes, 1, kDiskBytes), EINVAL);
  EXPECT_EQ(run(Kind::kRead, kDiskBytes, 0), 0);
  EXPECT_EQ(run(Kind::kFlush, 0, 0), 0);
  open({.read_only = true});
  EXPECT_EQ(write(0, "x"), EROFS);
  EXPECT_EQ(run(Kind::kDiscard, 0, 512), EROFS);
}

TEST_P(RawDiskTest, AFileThatShrankGivesAnErrorAndNoGarbage) {
  ASSERT_EQ(::ftruncate(file_.fd().get(), 4096), 0);
  std::string text;
  EXPECT_EQ(read(0, 4096, text), 0);
  EXPECT_EQ(read(0, 8192, text), EIO);
  EXPECT_EQ(read(8192, 512, text), EIO);
}

TEST_P(RawDiskTest, DiscardGivesSpaceBack) {
  ASSERT_EQ(write(0, std::string(1 << 20, 'd')), 0);
  ASSERT_EQ(run(Kind::kFlush, 0, 0), 0);
  uint64_t before = file_.host_sectors();
  ASSERT_EQ(run(Kind::kDiscard, 0, 1 << 19), 0);
  EXPECT_LE(file_.host_sectors() + (1 << 19) / 512, before);
  EXPECT_EQ(file_.read(0, 1), std::string(1, '\0'));
  open({.sparse = false});
  ASSERT_EQ(run(Kind::kDiscard, 0, 1 << 20), 0);
  EXPECT_EQ(file_.read(1 << 19, 1), "d");
}

TEST_P(RawDiskTest, WriteZeroesKeepsSpaceUnlessItMayUnmap) {
  std::string full(1 << 20, 'z');
  ASSERT_EQ(write(0, full), 0);
  ASSERT_EQ(run(Kind::kFlush, 0, 0), 0);
  uint64_t before = file_.host_sectors();
  ASSERT_EQ(run(Kind::kWriteZeroes, 512, 100'000), 0);
  EXPECT_EQ(file_.host_sectors(), before);
  EXPECT_TRUE(file_.read(512, 100'000) == std::string(100'000, '\0'));
  EXPECT_EQ(file_.read(511, 1) + file_.read(100'512, 1), "zz");
  ASSERT_EQ(run(Kind::kWriteZeroes, 0, 1 << 20, true), 0);
  EXPECT_LT(file_.host_sectors(), before);
  EXPECT_TRUE(file_.read(0, 1 << 20) == std::string(1 << 20, '\0'));
}

TEST_P(RawDiskTest, WithoutFallocateZeroesAreWritten) {
  faults_.add({.kind = FileKind::kAllocate, .error = EOPNOTSUPP});
  std::string full(3 << 20, 'f');
  ASSERT_EQ(write(1000, full), 0);
  ASSERT_EQ(run(Kind::kWriteZeroes, 2000, 2'500'000, true), 0);
  EXPECT_TRUE(file_.read(2000, 2'500'000) == std::string(2'500'000, '\0'));
  EXPECT_EQ(file_.read(1999, 1) + file_.read(2'502'000, 1), "ff");
  EXPECT_EQ(run(Kind::kDiscard, 0, 1 << 20), 0);  // a hint
  EXPECT_EQ(file_.read(1000, 1), "f");
}

TEST_P(RawDiskTest, AnErrorIsToldOfItsRequestAlone) {
  faults_.add({.offset = 4096, .length = 4096, .error = EIO});
  faults_.add({.kind = FileKind::kWrite, .offset = 65536, .length = 1, .error = ENOSPC});
  faults_.add({.kind = FileKind::kSync, .error = EDQUOT});
  std::vector<std::unique_ptr<Request>> requests;
  for (uint64_t i = 0; i < 20; ++i) {
    auto& request = requests.emplace_back(std::make_unique<Request>(Kind::kWrite, i * 4096, 4096));
    request->buffers = {ram(i * 4096, 4096)};
    disk_->start(*request);
  }
  disk_->submit();
  wait_all(requests);
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(requests[i]->result, i == 1 ? EIO : i == 16 ? ENOSPC : 0) << i;
  }
  EXPECT_EQ(run(Kind::kFlush, 0, 0), EDQUOT);
  faults_.clear();
  faults_.add({.kind = FileKind::kAllocate, .error = EIO});
  EXPECT_EQ(run(Kind::kDiscard, 0, 4096), EIO);
  EXPECT_EQ(run(Kind::kWriteZeroes, 0, 4096, true), EIO);
}

TEST_P(RawDiskTest, GoesOnAfterShortTransfers) {
  faults_.add({.kind = FileKind::kRead, .at_most = 1000});
  faults_.add({.kind = FileKind::kWrite, .at_most = 7});
  std::string text(1003, 'a');
  std::ranges::generate(text,
                        [next = 0]() mutable { return static_cast<char>('a' + next++ % 26); });
  ASSERT_EQ(write(11, text), 0);
  EXPECT_EQ(file_.read(11, text.size()), text);
  std::string back;
  ASSERT_EQ(read(11, text.size(), back), 0);
  EXPECT_EQ(back, text);
}

TEST_P(RawDiskTest, IsDestroyedWithRequestsInFlight) {
  faults_.add({.number = 3, .delay = std::chrono::milliseconds(1)});
  std::vector<std::unique_ptr<Request>> requests;
  for (uint64_t i = 0; i < 64; ++i) {
    auto& request =
        requests.emplace_back(std::make_unique<Request>(Kind::kWrite, i * 65536, 65536));
    request->buffers = {ram(i * 65536, 65536)};
    disk_->start(*request);
  }
  disk_->submit();
  disk_.reset();
  EXPECT_TRUE(loop_->run_once({}));
  for (const auto& request : requests) EXPECT_LE(request->result, 0);  // 0, or never told
}

TEST_P(RawDiskTest, RandomRequestsDoWhatAFlatModelDoes) {
  constexpr uint64_t kModelBytes = 1 << 20;
  std::string model(kModelBytes, '\0');
  std::mt19937_64 random(GetParam() == Executor::kUring ? 1 : 2);
  for (int turn = 0; turn < 3000; ++turn) {
    if (turn == 1500) open({.dontcache = true});
    uint64_t offset = random() % kModelBytes;
    uint64_t length = random() % std::min<uint64_t>(kModelBytes - offset, 40'000);
    switch (random() % 5) {
      case 0:
      case 1: {
        std::string text(length, static_cast<char>('a' + turn % 26));
        ASSERT_EQ(write(offset, text, random() % 4096), 0);
        model.replace(offset, length, text);
        break;
      }
      case 2:
        ASSERT_EQ(run(Kind::kWriteZeroes, offset, length, random() % 2 == 0), 0);
        model.replace(offset, length, length, '\0');
        break;
      default: {
        std::string text;
        ASSERT_EQ(read(offset, length, text, kRamBytes / 2 + random() % 4096), 0);
        ASSERT_EQ(text, model.substr(offset, length)) << "turn " << turn;
      }
    }
  }
  EXPECT_EQ(file_.read(0, kModelBytes), model);
}

/// Direct I/O in blocks of 4096 bytes, whatever this host's file system asks for.
class DirectRawDiskTest : public RawDiskTest {
 protected:
  void open_direct(uint64_t size = kDiskBytes) {
    disk_.reset();
    auto opened = open_path(file_.path(), O_RDWR | O_DIRECT);
    if (!opened) GTEST_SKIP() << opened.error().what();
    image_ = std::move(*opened);
    RawImageFacts facts{.size = size, .alignment = {.memory = 4096, .offset = 4096}};
    auto disk = RawDisk::create(make_faulty_file(*loop_, faults_, make_file()), facts, {}, "d.img");
    ASSERT_TRUE(disk) << disk.error().what();
    disk_ = std::move(*disk);
  }
};

INSTANTIATE_TEST_SUITE_P(, DirectRawDiskTest, testing::Values(Executor::kUring, Executor::kThreads),
                         [](const auto& info) {
                           return info.param == Executor::kUring ? "Uring" : "Threads";
                         });

TEST_P(DirectRawDiskTest, SectorsWrittenAtOnceToOneBlockAreAllThere) {
  open_direct();
  if (!disk_) return;
  std::string expected;
  std::vector<std::unique_ptr<Request>> requests;
  for (uint64_t i = 0; i < 64; ++i) {
    std::string text(512, static_cast<char>('A' + i % 26));
    expected += text;
    ASSERT_TRUE(memory_->write_bytes(GuestAddress{i * 512}, std::as_bytes(std::span(text))));
    auto& request = requests.emplace_back(std::make_unique<Request>(Kind::kWrite, i * 512, 512));
    request->buffers = {ram(i * 512, 512)};
    disk_->start(*request);
  }
  disk_->submit();
  wait_all(requests);
  EXPECT_EQ(file_.read(0, expected.size()), expected);
}

TEST_P(DirectRawDiskTest, HolesAreOfWholePages) {
  file_.write(0, std::string(16384, 'x'));
  open_direct();
  if (!disk_) return;
  // A part of a page that the file system made zero would be in the page cache.
  faults_.add({.kind = FileKind::kAllocate, .offset = 0, .length = 4096, .error = EIO});
  faults_.add({.kind = FileKind::kAllocate, .offset = 12288, .error = EIO});
  EXPECT_EQ(run(Kind::kWriteZeroes, 512, 14336), 0);
  EXPECT_EQ(run(Kind::kDiscard, 1024, 15000), 0);
  EXPECT_EQ(run(Kind::kWriteZeroes, 15360, 512), 0);
  EXPECT_EQ(run(Kind::kDiscard, 512, 1024), 0);
  const std::string whole(512, 'x');
  EXPECT_EQ(file_.read(0, 16384),
            whole + std::string(14336, '\0') + whole + std::string(512, '\0') + whole);
}

TEST_P(DirectRawDiskTest, RandomRequestsDoWhatAFlatModelDoes) {
  open_direct();
  if (!disk_) return;
  faults_.add({.kind = FileKind::kWrite, .offset = 8192, .length = 1, .at_most = 4096});
  faults_.add({.kind = FileKind::kAllocate, .offset = 1 << 19, .length = 4096, .error = EINVAL});
  constexpr uint64_t kModelBytes = 1 << 20;
  std::string model(kModelBytes, '\0');
  std::mt19937_64 random(7);
  for (int turn = 0; turn < 600; ++turn) {
    uint64_t offset = random() % kModelBytes;
    uint64_t length = random() % std::min<uint64_t>(kModelBytes - offset, 300'000);
    if (turn % 3 == 0) {  // some are aligned, to the block or to the sector
      offset &= ~uint64_t{4095};
      length &= turn % 2 == 0 ? ~uint64_t{4095} : ~uint64_t{511};
    }
    switch (random() % 4) {
      case 0: {
        std::string text(length, static_cast<char>('a' + turn % 26));
        ASSERT_EQ(write(offset, text, random() % 2 * 3), 0);
        model.replace(offset, length, text);
        break;
      }
      case 1:
        ASSERT_EQ(run(Kind::kWriteZeroes, offset, length), 0);
        model.replace(offset, length, length, '\0');
        break;
      default: {
        std::string text;
        ASSERT_EQ(read(offset, length, text, kRamBytes / 2 + random() % 2), 0);
        ASSERT_EQ(text, model.substr(offset, length)) << "turn " << turn;
      }
    }
  }
  EXPECT_EQ(file_.read(0, kModelBytes), model);
}

TEST_P(DirectRawDiskTest, ManyUnalignedRequestsShareAFewBuffers) {
  open_direct();
  if (!disk_) return;
  std::vector<std::unique_ptr<Request>> requests;
  for (uint64_t i = 0; i < 200; ++i) {
    auto& request = requests.emplace_back(std::make_unique<Request>(Kind::kRead, i * 512, 512));
    request->buffers = {ram(i * 512, 512)};
    disk_->start(*request);
  }
  disk_->submit();
  wait_all(requests);
  for (const auto& request : requests) EXPECT_EQ(request->result, 0);
}

TEST_P(RawDiskTest, TellsHolesFromData) {
  constexpr uint64_t kData = 1 << 20;
  file_.write(kData, std::string(64 << 10, 'x'));
  Request before(Kind::kExtent, 4096, kDiskBytes - 4096);
  ASSERT_EQ(run(before), 0);
  EXPECT_TRUE(before.extent.is_zero);
  EXPECT_EQ(before.extent.length, kData - 4096);
  Request data(Kind::kExtent, kData + 512, kDiskBytes - kData - 512);
  ASSERT_EQ(run(data), 0);
  EXPECT_FALSE(data.extent.is_zero);
  EXPECT_EQ(data.extent.length, (64u << 10) - 512);
  Request after(Kind::kExtent, 2 * kData, 100);
  ASSERT_EQ(run(after), 0);
  EXPECT_TRUE(after.extent.is_zero);
  EXPECT_EQ(after.extent.length, 100u);
}

TEST_P(RawDiskTest, GrowsAndShrinks) {
  std::optional<int> result;
  auto resize = [&](uint64_t bytes) {
    result.reset();
    disk_->resize(bytes, [&](const Result<void>& ended) { result = errno_of(ended); });
    while (!result) EXPECT_TRUE(loop_->run_once(std::chrono::seconds(10)));
    return *result;
  };
  EXPECT_EQ(write(kDiskBytes, "beyond"), EINVAL);
  ASSERT_EQ(resize(2 * kDiskBytes), 0);
  EXPECT_EQ(disk_->size(), 2 * kDiskBytes);
  ASSERT_EQ(write(kDiskBytes, "beyond"), 0);
  EXPECT_EQ(file_.read(kDiskBytes, 7), std::string("beyond\0", 7));
  ASSERT_EQ(resize(4096), 0);
  EXPECT_EQ(write(4096, "x"), EINVAL);
  faults_.add({.kind = FileKind::kTruncate, .error = ENOSPC});
  EXPECT_EQ(resize(kDiskBytes), ENOSPC);
  EXPECT_EQ(disk_->size(), 4096u);
  faults_.clear();
  open({.sparse = false});
  faults_.add({.kind = FileKind::kAllocate, .error = ENOSPC});
  EXPECT_EQ(resize(1 << 20), ENOSPC);
  EXPECT_EQ(disk_->size(), 4096u);
  EXPECT_EQ(file_.size(), 4096u) << "the host has the space back";
  faults_.clear();
  ASSERT_EQ(resize(1 << 20), 0);
  EXPECT_GE(file_.host_sectors(), ((1u << 20) - 4096) / 512);
  open({.read_only = true});
  EXPECT_EQ(resize(kDiskBytes), EROFS);
}

TEST_P(RawDiskTest, ABlockDeviceHasTheSizeThatItHas) {
  auto facts = inspect_raw_image(image_, "disk.img");
  ASSERT_TRUE(facts);
  facts->is_block_device = true;  // as far as sizes go
  disk_ = std::move(*RawDisk::create(make_file(), *facts, {}, "disk.img"));
  auto resize = [&](uint64_t bytes) {
    std::optional<int> result;
    disk_->resize(bytes, [&](const Result<void>& ended) { result = errno_of(ended); });
    while (!result) EXPECT_TRUE(loop_->run_once(std::chrono::seconds(10)));
    return *result;
  };
  ASSERT_EQ(::ftruncate(image_.get(), 2 * kDiskBytes), 0);
  EXPECT_EQ(resize(3 * kDiskBytes), ENOTSUP);
  EXPECT_EQ(disk_->size(), kDiskBytes) << "what is refused changes nothing";
  EXPECT_EQ(resize(2 * kDiskBytes), 0);
  EXPECT_EQ(disk_->size(), 2 * kDiskBytes);
  EXPECT_EQ(write(kDiskBytes, "beyond"), 0);
  ASSERT_EQ(::ftruncate(image_.get(), kDiskBytes), 0);
  EXPECT_EQ(resize(2 * kDiskBytes), ENOTSUP);
  EXPECT_EQ(resize(kDiskBytes), 0);
  EXPECT_EQ(disk_->size(), kDiskBytes);
}

TEST_P(RawDiskTest, ServesMemoryOfOurOwn) {
  std::string text = "ours";
  Request request(Kind::kWrite, 100, text.size());
  request.buffers = {GuestSlice::over(std::as_writable_bytes(std::span(text)))};
  ASSERT_EQ(run(request), 0);
  EXPECT_EQ(file_.read(100, 4), "ours");
}

/// Two files on one io_uring: each operation goes to its own.
TEST(AsyncFilesTest, FilesOfADiskShareARing) {
  auto ring = IoUring::create(2);
  if (!ring) GTEST_SKIP() << ring.error().what();
  auto loop = std::move(*EventLoop::create());
  TemporaryFile first(4096), second(4096);
  auto files = std::move(*AsyncFiles::create(*loop, std::move(*ring)));
  auto facts = *inspect_raw_image(first.fd(), "first");
  auto disk = [&](const TemporaryFile& file) {
    return std::move(
        *RawDisk::create(std::move(*files.make(borrowed(file.fd()))), facts, {}, "disk"));
  };
  auto one = disk(first), other = disk(second);
  std::vector<std::unique_ptr<Request>> requests;
  std::string text = "abcdefgh";
  for (uint64_t i = 0; i < 8; ++i) {
    for (RawDisk* each : {one.get(), other.get()}) {
      auto& request = requests.emplace_back(std::make_unique<Request>(Kind::kWrite, i, 1));
      auto byte = std::as_writable_bytes(std::span(text)).subspan(each == one.get() ? i : 7 - i, 1);
      request->buffers = {GuestSlice::over(byte)};
      each->start(*request);
    }
  }
  one->submit();  // begins the other's too
  auto pending = [](const auto& request) { return request->result < 0; };
  while (std::ranges::any_of(requests, pending))
    ASSERT_TRUE(loop->run_once(std::chrono::seconds(10)));
  EXPECT_EQ(first.read(0, 8), "abcdefgh");
  EXPECT_EQ(second.read(0, 8), "hgfedcba");
}

TEST(RawDiskCreateTest, RefusesADirectDiskWithATornLastBlock) {
  auto loop = std::move(*EventLoop::create());
  Fd image;
  RawImageFacts facts{.size = 4096 + 512, .alignment = {.memory = 512, .offset = 4096}};
  auto file = [&] { return std::move(*make_async_file(*loop, borrowed(image), std::nullopt)); };
  auto disk = RawDisk::create(file(), facts, {}, "d.img");
  ASSERT_FALSE(disk);
  EXPECT_THAT(disk.error().what(), HasSubstr("d.img: its size of 4608 bytes"));
  EXPECT_TRUE(RawDisk::create(file(), facts, {.read_only = true}, "d.img"));
}

TEST(RawImageTest, RefusesWhatIsNoDisk) {
  auto facts = inspect_raw_image(*open_path("/", O_RDONLY), "/");
  ASSERT_FALSE(facts);
  EXPECT_THAT(facts.error().what(), HasSubstr("directory"));
}

}  // namespace
}  // namespace crosvm
