#include "disk/android_sparse/android_sparse_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "disk/android_sparse/sparse_image_maker.h"
#include "disk/disk_driver.h"

namespace crosvm {
namespace {

using android_sparse::ChunkType;
using test::SparseImageMaker;
using testing::AllOf;
using testing::HasSubstr;
using Kind = DiskRequest::Kind;

class AndroidSparseTest : public testing::Test {
 protected:
  Result<SparseMap> read_map(const std::string& path, int flags = 0) {
    const Fd image = TRY(open_path(path, O_RDONLY | flags));
    ImageReader reader = TRY(ImageReader::create(image, "disk.simg"));
    return SparseMap::read(reader);
  }
  std::unique_ptr<AndroidSparseDisk> open(const std::string& path, int flags = 0) {
    auto map = read_map(path, flags);
    EXPECT_TRUE(map) << map.error().what();
    return std::make_unique<AndroidSparseDisk>(std::move(*map),
                                               driver_.open_raw(path, true, flags));
  }
  /// The error of opening such an image.
  std::string refusal(const std::string& image) {
    auto map = read_map(folder_.write("bad.simg", image));
    return map ? "opened" : map.error().what();
  }

  test::TemporaryFolder folder_;
  test::DiskDriver driver_;
};

TEST_F(AndroidSparseTest, ReadsWhatImg2simgMakes) {
  if (!test::has_program("img2simg")) {
    GTEST_SKIP() << "img2simg is missing: install the package android-sdk-libsparse-utils";
  }
  for (const size_t block : {4096, 1024}) {
    const std::string model = test::mixed_bytes(driver_.random(), 400 * 4096, 4096);
    const std::string raw = folder_.write("disk.img", model);
    const test::Ran ran = test::run_program("img2simg " + raw + " " + folder_.path("disk.simg") +
                                            " " + std::to_string(block));
    ASSERT_EQ(ran.status, 0) << ran.output;
    auto disk = open(folder_.path("disk.simg"));
    driver_.compare(*disk, model, 500, 200'000);
    EXPECT_TRUE(driver_.read(*disk, 0, model.size()) == model);
  }
}

TEST_F(AndroidSparseTest, ReadsEveryKindOfChunk) {
  SparseImageMaker maker{.header_bytes = 40};
  std::string model;
  for (uint32_t i = 0; i < 300; ++i) {
    const uint32_t blocks = 1 + i % 3;
    const std::string bytes = test::mixed_bytes(driver_.random(), blocks * size_t{4096}, 100);
    if (i % 2 == 0) {
      maker.add(ChunkType::kRaw, blocks, bytes);
      model += bytes;
    }
    maker.add(ChunkType::kCrc32, 0, "abcd");
    maker.add(ChunkType::kFill, blocks, "1234");
    for (uint32_t word = 0; word < blocks * 1024; ++word) model += "1234";
    if (i % 5 == 0) maker.add(ChunkType::kDontCare, blocks, "");
    if (i % 5 == 0) model.append(blocks * size_t{4096}, '\0');
  }
  const std::string path = folder_.write("disk.simg", maker.image());
  auto disk = open(path);
  driver_.compare(*disk, model, 1000, 100'000);
  EXPECT_TRUE(driver_.extent(*disk, 5 * 4096, 4096).is_present);
  disk = open(path, O_DIRECT);
  driver_.compare(*disk, model, 100, 100'000);
}

TEST_F(AndroidSparseTest, TellsZeroesFromData) {
  SparseImageMaker maker;
  maker.add(ChunkType::kRaw, 1, std::string(4096, 'r'));
  maker.add(ChunkType::kDontCare, 1, "");
  maker.add(ChunkType::kFill, 2, std::string(4, '\0'));
  maker.add(ChunkType::kFill, 1, "ffff");
  auto disk = open(folder_.write("disk.simg", maker.image()));
  EXPECT_FALSE(driver_.extent(*disk, 0, 4096).is_zero);
  const DiskRequest::Extent zeroes = driver_.extent(*disk, 4096 + 512, 4 * 4096 - 512);
  EXPECT_TRUE(zeroes.is_zero);
  EXPECT_EQ(zeroes.length, 3 * 4096u - 512);
  EXPECT_FALSE(driver_.extent(*disk, 4 * 4096, 4096).is_zero);
}

TEST_F(AndroidSparseTest, IsReadOnlyAndBounded) {
  SparseImageMaker maker;
  maker.add(ChunkType::kDontCare, 2, "");
  auto disk = open(folder_.write("disk.simg", maker.image()));
  EXPECT_EQ(driver_.write(*disk, 0, "x"), EROFS);
  EXPECT_EQ(driver_.run(*disk, Kind::kDiscard, 0, 4096), EROFS);
  EXPECT_EQ(driver_.run(*disk, Kind::kWriteZeroes, 0, 4096), EROFS);
  EXPECT_EQ(driver_.run(*disk, Kind::kFlush), 0);
  EXPECT_EQ(driver_.read(*disk, 8191, 2), "errno 22");
  EXPECT_EQ(driver_.read(*disk, 8192, 0), "");
  int resized = -1;
  disk->resize(1 << 20, [&](const Result<void>& ended) { resized = errno_of(ended); });
  EXPECT_EQ(resized, ENOTSUP);
}

TEST_F(AndroidSparseTest, AnEmptyOneIsADiskOfNoBytes) {
  auto disk = open(folder_.write("disk.simg", SparseImageMaker{}.image()));
  EXPECT_EQ(disk->size(), 0u);
  EXPECT_EQ(driver_.read(*disk, 0, 1), "errno 22");
}

TEST_F(AndroidSparseTest, RefusesWhatIsMalformed) {
  EXPECT_THAT(refusal(SparseImageMaker{.major = 2}.image()),
              AllOf(HasSubstr("disk.simg"), HasSubstr("version 2"), HasSubstr("simg2img")));
  EXPECT_THAT(refusal(SparseImageMaker{.header_bytes = 20}.image()), HasSubstr("20 bytes"));
  EXPECT_THAT(refusal(SparseImageMaker{.chunk_header_bytes = 16}.image()), HasSubstr("16 bytes"));
  EXPECT_THAT(refusal(SparseImageMaker{.block = 0}.image()), HasSubstr("multiple of 4"));
  EXPECT_THAT(refusal(SparseImageMaker{.block = 4098}.image()), HasSubstr("multiple of 4"));
  EXPECT_THAT(refusal(SparseImageMaker{.block = 0xFFFFFFFC, .blocks = 0xFFFFFFFF}.image()),
              HasSubstr("too much"));
  EXPECT_THAT(refusal(SparseImageMaker{.chunks = 0xFFFFFFFF}.image()), HasSubstr("chunks"));
  EXPECT_THAT(refusal(SparseImageMaker{.chunks = 1}.image()), HasSubstr("ends at byte 28"));
  EXPECT_THAT(refusal(SparseImageMaker{.blocks = 1}.image()), HasSubstr("make 0 blocks"));
  EXPECT_THAT(refusal(SparseImageMaker{}.image().substr(0, 22)), HasSubstr("file ends at byte 22"));

  auto with = [](ChunkType type, uint32_t blocks, std::string_view bytes, int64_t off) {
    SparseImageMaker maker;
    maker.add(type, blocks, bytes, off);
    return maker;
  };
  EXPECT_THAT(refusal(with(ChunkType{0xCAC5}, 0, "", 0).image()), HasSubstr("type 0xcac5"));
  EXPECT_THAT(refusal(with(ChunkType::kRaw, 1, "", 4096).image()), HasSubstr("ends at byte 4136"));
  EXPECT_THAT(refusal(with(ChunkType::kRaw, 1, "1234", 0).image()), HasSubstr("takes 16 bytes"));
  EXPECT_THAT(refusal(with(ChunkType::kFill, 1, "1234", 1).image()), HasSubstr("takes 17 bytes"));
  EXPECT_THAT(refusal(with(ChunkType::kCrc32, 1, "1234", 0).image()), HasSubstr("has blocks"));
  EXPECT_THAT(refusal(with(ChunkType::kDontCare, 1, "", -12).image()), HasSubstr("takes 0 bytes"));
  SparseImageMaker more = with(ChunkType::kDontCare, 5, "", 0);
  more.blocks = 4;
  EXPECT_THAT(refusal(more.image()), HasSubstr("reaches past"));
}

TEST_F(AndroidSparseTest, AFileThatShrankGivesAnError) {
  SparseImageMaker maker;
  maker.add(ChunkType::kDontCare, 1, "");
  maker.add(ChunkType::kRaw, 2, std::string(8192, 'r'));
  const std::string path = folder_.write("disk.simg", maker.image());
  auto disk = open(path);
  ASSERT_EQ(::truncate(path.c_str(), 4096), 0);
  EXPECT_EQ(driver_.read(*disk, 0, 3 * 4096), "errno 5");
  EXPECT_EQ(driver_.read(*disk, 0, 4096), std::string(4096, '\0'));
}

}  // namespace
}  // namespace crosvm
