#include "disk/zstd/zstd_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "base/format.h"
#include "disk/disk_driver.h"
#include "disk/zstd/seekable_writer.h"
#include "disk/zstd/zstd_file_maker.h"
#include "disk/zstd/zstd_stream.h"

namespace crosvm {
namespace {

using test::SeekableMaker;
using testing::AllOf;
using testing::HasSubstr;
using Kind = DiskRequest::Kind;

TEST(Xxh64Test, IsThatOfZstdFrames) {
  EXPECT_EQ(xxh64({}), 0xEF46DB3751D8E999);
  std::mt19937_64 random(1);
  for (size_t length = 0; length < 300; ++length) {
    std::string bytes(length == 299 ? 1'000'001 : length, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    const std::string frame = test::zstd_frame(bytes, true, true);
    EXPECT_EQ(test::number(xxh64(std::as_bytes(std::span(bytes))), 4),
              frame.substr(frame.size() - 4))
        << length;
  }
}

class ZstdDiskTest : public testing::Test {
 protected:
  Result<ZstdIndex> read_index(const std::string& path, int flags = 0) {
    const Fd image = TRY(open_path(path, O_RDONLY | flags));
    ImageReader reader = TRY(ImageReader::create(image, "disk.zst"));
    return ZstdIndex::read(reader);
  }
  std::unique_ptr<ZstdDisk> open(const std::string& path, int flags = 0) {
    auto index = read_index(path, flags);
    EXPECT_TRUE(index) << index.error().what();
    auto disk = ZstdDisk::create(
        std::move(*index), std::make_unique<Counting>(driver_.open_raw(path, true, flags), reads_),
        driver_.loop(), "disk.zst");
    EXPECT_TRUE(disk);
    return std::move(*disk);
  }
  std::unique_ptr<ZstdDisk> open_bytes(std::string_view bytes) {
    return open(folder_.write("disk.zst", bytes));
  }
  /// The error of opening such a file.
  std::string refusal(std::string_view bytes) {
    auto index = read_index(folder_.write("bad.zst", bytes));
    return index ? "opened" : index.error().what();
  }
  std::string mixed(size_t size) { return test::mixed_bytes(driver_.random(), size, 3000); }

  /// Counts the reads of the file.
  class Counting final : public Disk {
   public:
    Counting(std::unique_ptr<Disk> below, int& reads) : below_(std::move(below)), reads_(reads) {}
    uint64_t size() const override { return below_->size(); }
    DiskTopology topology() const override { return below_->topology(); }
    void start(DiskRequest& request) override {
      ++reads_;
      below_->start(request);
    }
    void submit() override { below_->submit(); }
    void on_batch(std::function<void()> told) override { below_->on_batch(std::move(told)); }

   private:
    std::unique_ptr<Disk> below_;
    int& reads_;
  };

  test::TemporaryFolder folder_;
  test::DiskDriver driver_;
  int reads_ = 0;
};

TEST_F(ZstdDiskTest, ReadsTheSeekableFormatAsDescribed) {
  for (const bool checksums : {true, false}) {
    SeekableMaker maker{.checksums = checksums};
    std::string model;
    for (size_t i = 0; i < 100; ++i) {
      const std::string bytes = mixed(1 + driver_.random()() % 200'000);
      maker.add(bytes);
      model += bytes;
      if (i % 7 == 0) maker.add_frame(test::skippable_frame("skipped"), "");
      if (i % 9 == 0) maker.add("");
    }
    auto disk = open_bytes(maker.file());
    driver_.compare(*disk, model, 500, 1'000'000);
    disk = open(folder_.path("disk.zst"), O_DIRECT);
    driver_.compare(*disk, model, 50, 1'000'000);
  }
}

TEST_F(ZstdDiskTest, ReadsFramesWithoutATable) {
  std::string model;
  std::string file;
  for (size_t i = 0; i < 60; ++i) {
    const std::string bytes = mixed(driver_.random()() % 300'000);
    model += bytes;
    file += test::zstd_frame(bytes, i % 4 != 0, i % 3 == 0);
    if (i % 5 == 0) file += test::skippable_frame(std::string(i * 100, 's'));
  }
  auto disk = open_bytes(file);
  driver_.compare(*disk, model, 500, 1'000'000);
}

TEST_F(ZstdDiskTest, ReadsWhatTheZstdProgramMakes) {
  if (!test::has_program("zstd")) GTEST_SKIP() << "zstd is missing: install the package zstd";
  const std::string model = mixed(5'000'000);
  folder_.write("one", std::string_view(model).substr(0, 2'000'000));
  folder_.write("two", std::string_view(model).substr(2'000'000));
  const std::string cd = "cd " + folder_.path("") + " && ";
  for (const std::string_view command :
       {"cat one two > all && zstd -q -f -1 all -o disk.zst", "cat one two | zstd -q > disk.zst",
        "(zstd -q -c -19 --long=27 one; zstd -q -c --no-check two) > disk.zst",
        "(zstd -q < one; zstd -q --fast=5 -c two) > disk.zst"}) {
    const test::Ran ran = test::run_program(cd + std::string(command));
    ASSERT_EQ(ran.status, 0) << ran.output;
    auto disk = open(folder_.path("disk.zst"));
    driver_.compare(*disk, model, 100, 1'000'000);
  }
}

TEST_F(ZstdDiskTest, OursIsReadByAllOfUs) {
  const std::string head = mixed(3'000'000);
  const std::string tail = mixed(100'000);
  const std::string model = head + std::string(1'000'000, '\0') + tail;
  for (const size_t frame : {size_t{4096}, SeekableZstdWriter::kFrameBytes, size_t{1} << 20}) {
    const std::string path = folder_.path("disk.zst");
    const Fd file = std::move(*open_path(path, O_WRONLY | O_CREAT | O_TRUNC));
    auto writer = SeekableZstdWriter::create(file, path, {.frame_bytes = frame});
    ASSERT_TRUE(writer);
    for (size_t at = 0; at < head.size(); at += 70'000) {
      const std::string_view piece = std::string_view(head).substr(at, 70'000);
      ASSERT_TRUE(writer->append(std::as_bytes(std::span(piece))));
    }
    ASSERT_TRUE(writer->append_zeroes(1'000'000));
    ASSERT_TRUE(writer->append(std::as_bytes(std::span(tail))));
    ASSERT_TRUE(writer->finish());
    auto index = read_index(path);
    ASSERT_TRUE(index) << index.error().what();
    EXPECT_TRUE(index->has_checksums());
    EXPECT_EQ(index->frames(), (model.size() + frame - 1) / frame);
    auto disk = open(path);
    driver_.compare(*disk, model, 100, 1'000'000);
    if (!test::has_program("zstd")) GTEST_SKIP() << "zstd is missing: install the package zstd";
    const test::Ran ran =
        test::run_program("zstd -q -d -f " + path + " -o " + folder_.path("unpacked"));
    EXPECT_EQ(ran.status, 0) << ran.output;
    EXPECT_TRUE(folder_.read("unpacked") == model);
  }
}

TEST_F(ZstdDiskTest, AnEmptyDiskIsWrittenAndRead) {
  const std::string path = folder_.path("disk.zst");
  const Fd file = std::move(*open_path(path, O_WRONLY | O_CREAT));
  auto writer = SeekableZstdWriter::create(file, path, {});
  ASSERT_TRUE(writer && writer->finish());
  EXPECT_EQ(open(path)->size(), 0u);
  EXPECT_FALSE(SeekableZstdWriter::create(file, path, {.frame_bytes = 4095}));
  EXPECT_FALSE(SeekableZstdWriter::create(file, path, {.frame_bytes = 65 << 20}));
  EXPECT_FALSE(SeekableZstdWriter::create(file, path, {.level = 23}));
  EXPECT_EQ(SeekableZstdWriter::frame_bytes_for(uint64_t{1} << 40), 512u << 10);
  EXPECT_EQ(SeekableZstdWriter::frame_bytes_for(uint64_t{1} << 43), 4u << 20);
}

TEST_F(ZstdDiskTest, FramesThatAreTooLargeAreRefusedWithACommand) {
  const std::string zeroes((64 << 20) + 1, '\0');
  const auto refused = AllOf(HasSubstr("disk.zst: it has zstd frames of more than 64 MiB"),
                             HasSubstr("`crosvm disk convert disk.zst OUT.zst`"),
                             HasSubstr("`zstd -d disk.zst -o OUT.img`"));
  EXPECT_THAT(refusal(test::zstd_frame(zeroes)), refused);
  EXPECT_THAT(refusal(test::zstd_frame(zeroes, false)), refused);
  SeekableMaker maker;
  maker.add(zeroes);
  EXPECT_THAT(refusal(maker.file()), refused);

  const std::string fits = zeroes.substr(1);
  for (const bool has_size : {true, false}) {
    auto disk = open_bytes(test::zstd_frame("begin") + test::zstd_frame(fits, has_size));
    EXPECT_EQ(disk->size(), fits.size() + 5);
    EXPECT_EQ(driver_.read(*disk, 3, 5), std::string("in\0\0\0", 5));
    EXPECT_EQ(driver_.read(*disk, 64 << 20, 5), std::string(5, '\0'));
  }
  const std::string half = zeroes.substr(32 << 20);
  EXPECT_EQ(refusal(test::zstd_frame(half, false)), "opened");
  EXPECT_THAT(refusal(test::zstd_frame(half, false) + test::zstd_frame(half, false)), refused);
}

TEST_F(ZstdDiskTest, WhatIsTooLargeIsDecodedAsAStream) {
  const std::string model = mixed(1'000'000) + std::string(70 << 20, 'x');
  const std::string file = test::zstd_frame("begin") + test::zstd_frame(model, false, true);
  const std::string path = folder_.write("disk.zst", file);
  auto decode = [&](const std::string& from) -> Result<std::string> {
    const Fd image = TRY(open_path(from, O_RDONLY));
    ImageReader reader = TRY(ImageReader::create(image, "disk.zst"));
    std::string all;
    TRY(decode_zstd(reader, 0, reader.size(), [&](std::span<const std::byte> bytes) {
      all.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return Result<void>();
    }));
    return all;
  };
  EXPECT_TRUE(*decode(path) == "begin" + model);
  folder_.write("cut.zst", std::string_view(file).substr(0, file.size() - 1));
  EXPECT_THAT(decode(folder_.path("cut.zst")).error().what(), HasSubstr("in the middle"));
  EXPECT_THAT(decode(folder_.write("no.zst", "no zstd")).error().what(), HasSubstr("zstd says"));
}

TEST_F(ZstdDiskTest, RequestsThatWaitForOneFrameShareItsDecoding) {
  SeekableMaker maker;
  const std::string model = mixed(100'000);
  maker.add(model);
  auto disk = open_bytes(maker.file());
  std::vector<test::DriverRequest> requests(20);
  std::vector<std::string> texts(requests.size(), std::string(100, '?'));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].offset = i * 1000;
    requests[i].length = 100;
    requests[i].buffers = {GuestSlice::over(std::as_writable_bytes(std::span(texts[i])))};
    disk->start(requests[i]);
  }
  disk->submit();
  for (size_t i = 0; i < requests.size(); ++i) {
    while (requests[i].result < 0) ASSERT_TRUE(driver_.loop().run_once(std::chrono::seconds(10)));
    EXPECT_EQ(texts[i], model.substr(i * 1000, 100));
  }
  EXPECT_EQ(driver_.read(*disk, 50'000, 5000), model.substr(50'000, 5000));
  EXPECT_EQ(reads_, 1);
}

TEST_F(ZstdDiskTest, KeepsNoMoreFramesThanItMay) {
  SeekableMaker maker;
  std::string model;
  for (char i = 0; i < 50; ++i) {
    const std::string bytes(1 << 20, i);
    maker.add(bytes);
    model += bytes;
  }
  auto disk = open_bytes(maker.file());
  EXPECT_TRUE(driver_.read(*disk, 0, model.size()) == model);
  EXPECT_EQ(reads_, 50);
  EXPECT_TRUE(driver_.read(*disk, 18 << 20, 32 << 20) == model.substr(18 << 20));
  EXPECT_EQ(reads_, 50);  // the last 32 MiB are here
  EXPECT_EQ(driver_.read(*disk, 17 << 20, 1), std::string(1, 17));
  EXPECT_EQ(reads_, 51);
  driver_.compare(*disk, model, 300, 10 << 20);
}

TEST_F(ZstdDiskTest, IsReadOnlyAndBounded) {
  auto disk = open_bytes(test::zstd_frame("0123456789"));
  EXPECT_EQ(driver_.write(*disk, 0, "x"), EROFS);
  EXPECT_EQ(driver_.run(*disk, Kind::kDiscard, 0, 10), EROFS);
  EXPECT_EQ(driver_.run(*disk, Kind::kWriteZeroes, 0, 10), EROFS);
  EXPECT_EQ(driver_.run(*disk, Kind::kFlush), 0);
  EXPECT_EQ(driver_.read(*disk, 5, 5), "56789");
  EXPECT_EQ(driver_.read(*disk, 5, 6), "errno 22");
  EXPECT_EQ(driver_.read(*disk, 10, 0), "");
  EXPECT_FALSE(driver_.extent(*disk, 2, 8).is_zero);
}

TEST_F(ZstdDiskTest, ADiskMayGoWhileFramesAreOnTheirWay) {
  auto disk = open_bytes(test::zstd_frame(mixed(100'000)));
  test::DriverRequest request;
  std::string text(100, '?');
  request.length = text.size();
  request.buffers = {GuestSlice::over(std::as_writable_bytes(std::span(text)))};
  disk->start(request);
  disk->submit();
  disk.reset();
  EXPECT_TRUE(driver_.loop().run_once(std::chrono::milliseconds(1)));
  EXPECT_EQ(request.result, -1);
}

TEST_F(ZstdDiskTest, DamagedFramesGiveErrorsAndOthersAreRead) {
  std::string one(50'000, '\0');
  for (char& byte : one) byte = static_cast<char>(driver_.random()());
  for (const bool checksums : {true, false}) {
    SeekableMaker maker{.checksums = checksums};
    maker.add(one);
    maker.add(one);
    maker.add_frame(test::zstd_frame(one), one + "x");  // makes less than the table says
    std::string file = maker.file();
    for (int i = 0; i < 20; ++i) file[test::zstd_frame(one).size() + 100 + i] ^= 0x55;
    auto disk = open_bytes(file);
    EXPECT_EQ(driver_.read(*disk, 10, 1000), one.substr(10, 1000));
    if (checksums) {
      EXPECT_EQ(driver_.read(*disk, 60'000, 10), "errno 5");
    }
    EXPECT_EQ(driver_.read(*disk, 110'000, 10), "errno 5");
    EXPECT_EQ(driver_.read(*disk, 0, 150'000), "errno 5");
    EXPECT_EQ(driver_.read(*disk, 10, 1000), one.substr(10, 1000));
  }
  SeekableMaker wrong;
  wrong.add("right");
  wrong.table.back() ^= 1;
  EXPECT_EQ(driver_.read(*open_bytes(wrong.file()), 0, 5), "errno 5");
}

TEST_F(ZstdDiskTest, RefusesATableThatIsMalformed) {
  SeekableMaker maker;
  maker.add("one");
  maker.add("two");
  auto with = [&](auto change) {
    SeekableMaker changed = maker;
    change(changed);
    return refusal(changed.file());
  };
  EXPECT_EQ(with([](auto& made) { made.descriptor |= 0x03; }), "opened");  // unused bits
  EXPECT_THAT(with([](auto& made) { made.descriptor |= 0x04; }),
              AllOf(HasSubstr("disk.zst"), HasSubstr("0x84"), HasSubstr("zstd -d")));
  EXPECT_THAT(with([](auto& made) { made.count = 0xFFFFFFFF; }), HasSubstr("does not fit"));
  EXPECT_THAT(with([](auto& made) { made.count = 1; }), HasSubstr("no frame of its own"));
  EXPECT_THAT(with([](auto& made) { made.frames += "x"; }), HasSubstr("does not name all"));
  EXPECT_THAT(with([](auto& made) { made.table[0] = 0x7f; }), HasSubstr("past the end"));
  EXPECT_THAT(with([](auto& made) { made.table[7] = 0x7f; }), HasSubstr("more than 64 MiB"));
}

TEST_F(ZstdDiskTest, RefusesMoreFramesThanAJailHasMemoryFor) {
  auto with = [&](size_t frames, uint32_t length) {
    SeekableMaker maker{.checksums = false};
    maker.count = static_cast<uint32_t>(frames);
    const std::string entry = test::number(0, 4) + test::number(length, 4);
    for (size_t i = 0; i < frames; ++i) maker.table += entry;
    return refusal(maker.file());
  };
  const auto too_many = AllOf(HasSubstr("disk.zst"), HasSubstr("too many zstd frames"),
                              HasSubstr("crosvm disk convert"));
  EXPECT_EQ(with(ZstdIndex::kMostFrames, 128 << 10), "opened");
  EXPECT_THAT(with(ZstdIndex::kMostFrames + 1, 1), too_many);
  EXPECT_EQ(with(ZstdIndex::kMostFrames, 32 << 20), "opened");
  EXPECT_EQ(with(100'000, 64 << 20), "opened");
  EXPECT_THAT(with(ZstdIndex::kMostFrames, 64 << 20), too_many);
}

TEST_F(ZstdDiskTest, WhatIsWrittenHasNoMoreFramesThanAreRead) {
  for (const uint64_t size : {1ULL << 20, 1ULL << 40, 8ULL << 40, (128ULL << 40) - 1}) {
    const uint64_t frame = SeekableZstdWriter::frame_bytes_for(size);
    EXPECT_LE(size / frame, ZstdIndex::kMostFrames) << size;
    EXPECT_LE(frame, 32u << 20) << size;
  }
  EXPECT_EQ(SeekableZstdWriter::frame_bytes_for(500ULL << 30), SeekableZstdWriter::kFrameBytes);
}

TEST_F(ZstdDiskTest, RefusesFramesThatAreMalformed) {
  const std::string frame = test::zstd_frame(mixed(300'000), true, true);
  for (const size_t length : {size_t{3}, size_t{5}, size_t{8}, size_t{10}, frame.size() / 2,
                              frame.size() - 4, frame.size() - 1}) {
    EXPECT_NE(refusal(std::string_view(frame).substr(0, length)), "opened") << length;
  }
  EXPECT_THAT(refusal(frame + "junk that follows"), HasSubstr("no frame begins"));
  EXPECT_THAT(refusal(frame + std::string(4, '\0')),
              AllOf(HasSubstr(format_text("at byte {}", frame.size())), HasSubstr("zstd -t")));
  std::string reserved = frame;
  reserved[4] = static_cast<char>(reserved[4] | 0x08);
  EXPECT_THAT(refusal(reserved), HasSubstr("reserved bit"));
  EXPECT_THAT(refusal(test::skippable_frame("abc").substr(0, 10)), HasSubstr("past its end"));
  // Single segment, so many bytes, then blocks.
  const std::string start = "\x28\xb5\x2f\xfd\x20";
  EXPECT_EQ(refusal(start + std::string("\x02\x11\0\0ab", 6)), "opened");
  EXPECT_THAT(refusal(start + std::string("\x03\x11\0\0ab", 6)), HasSubstr("makes less"));
  EXPECT_THAT(refusal(start + std::string("\x02\x17\0\0ab", 6)), HasSubstr("no known kind"));
  EXPECT_THAT(refusal(start + std::string("\x02\x03\0\x20x", 5)), HasSubstr("no known kind"));
  EXPECT_THAT(refusal(start + std::string("\x02\x10\0\0ab", 6)), HasSubstr("the file ends"));
  EXPECT_EQ(driver_.read(*open_bytes(start + std::string("\x09\x4b\0\0z", 5)), 0, 9), "zzzzzzzzz");
  const std::string dictionary = std::string("\x28\xb5\x2f\xfd\x21\x01\x02\x09\0\0a", 11);
  EXPECT_THAT(refusal(dictionary), HasSubstr("dictionary"));
}

}  // namespace
}  // namespace crosvm
