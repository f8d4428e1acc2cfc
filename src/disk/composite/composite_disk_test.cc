#include "disk/composite/composite_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "disk/composite/protobuf.h"
#include "disk/disk_driver.h"

namespace crosvm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Kind = DiskRequest::Kind;

Result<CompositeDescriptor> parse(const std::string& bytes) {
  return parse_composite(std::as_bytes(std::span(bytes)), "disk.composite");
}
std::string refusal(const std::string& bytes) {
  auto parsed = parse(bytes);
  return parsed ? "parsed" : parsed.error().what();
}

std::string component(std::string_view path, uint64_t offset, uint64_t capability = 0,
                      uint64_t file_offset = 0) {
  std::string message;
  std::string field;
  append_protobuf_bytes(message, 1, path);
  append_protobuf_number(message, 2, offset);
  append_protobuf_number(message, 3, capability);
  append_protobuf_number(message, 4, file_offset);
  append_protobuf_bytes(field, 2, message);
  return field;
}
std::string composite(const std::string& components, uint64_t length, uint64_t version = 2) {
  std::string bytes = "composite_disk\x1d";
  append_protobuf_number(bytes, 1, version);
  bytes += components;
  append_protobuf_number(bytes, 3, length);
  return bytes;
}

TEST(CompositeDescriptorTest, TakesVersionsOneAndTwoInAnyOrder) {
  for (const uint64_t version : {1, 2}) {
    auto parsed =
        parse(composite(component("b", 4096, 1, 512) + component("/a", 0), 10'000, version));
    ASSERT_TRUE(parsed) << parsed.error().what();
    EXPECT_EQ(parsed->length, 10'000u);
    ASSERT_EQ(parsed->components.size(), 2u);
    EXPECT_EQ(parsed->components[0].path, "/a");
    EXPECT_EQ(parsed->components[0].length, 4096u);
    EXPECT_FALSE(parsed->components[0].writable);
    EXPECT_EQ(parsed->components[1].path, "b");
    EXPECT_EQ(parsed->components[1].length, 5904u);
    EXPECT_EQ(parsed->components[1].file_offset, 512u);
    EXPECT_TRUE(parsed->components[1].writable);
  }
}

TEST(CompositeDescriptorTest, IsWrittenAsItIsRead) {
  const CompositeDescriptor written{
      .length = 1 << 30,
      .components = {{.path = "x"},
                     {.path = "y/z", .offset = 300, .file_offset = 1ULL << 40, .writable = true}}};
  // By hand, from the description of the encoding.
  const std::string second("\x0a\x03y/z\x10\xac\x02\x18\x01\x20\x80\x80\x80\x80\x80\x20", 17);
  EXPECT_EQ(composite_bytes(written), "composite_disk\x1d\x08\x02\x12\x03\x0a\x01x\x12\x11" +
                                          second + "\x18\x80\x80\x80\x80\x04");
  auto read = parse(composite_bytes(written));
  ASSERT_TRUE(read) << read.error().what();
  EXPECT_EQ(composite_bytes(*read), composite_bytes(written));
}

TEST(CompositeDescriptorTest, SkipsFieldsThatItDoesNotKnow) {
  std::string more = component("a", 0);
  append_protobuf_bytes(more, 2000, "what");
  append_protobuf_number(more, 9, UINT64_MAX);
  more += std::string("\x51\1\2\3\4\5\6\7\x8\x55\1\2\3\4", 14);
  EXPECT_EQ(refusal(composite(more, 4096)), "parsed");
}

TEST(CompositeDescriptorTest, RefusesWhatIsMalformed) {
  EXPECT_THAT(refusal("composite_dis"), HasSubstr("disk.composite is no composite disk"));
  EXPECT_THAT(refusal(composite(component("a", 0), 4096, 3)),
              AllOf(HasSubstr("version 3"), HasSubstr("create_composite")));
  EXPECT_THAT(refusal(composite("", 4096)), HasSubstr("no components"));
  EXPECT_THAT(refusal(composite(component("a", 512), 4096)), HasSubstr("nothing before byte 512"));
  EXPECT_THAT(refusal(composite(component("a", 0) + component("b", 0), 4096)),
              HasSubstr("two components at byte 0"));
  EXPECT_THAT(refusal(composite(component("a", 0) + component("b", 4096), 4096)),
              HasSubstr("has 4096 bytes but a component at 4096"));
  EXPECT_THAT(refusal(composite(component("a", 0), UINT64_MAX)), HasSubstr("bytes"));
  EXPECT_THAT(refusal(composite(component("a", 0, 0, UINT64_MAX), 4096)),
              HasSubstr("18446744073709551615 of a"));
  EXPECT_THAT(refusal(composite(component("a", 0, 2), 4096)), HasSubstr("capability 2"));
  EXPECT_THAT(refusal(composite(component("", 0), 4096)), HasSubstr("name"));
  EXPECT_THAT(refusal(composite(component(std::string("a\0b", 3), 0), 4096)), HasSubstr("name"));
  EXPECT_THAT(refusal(composite(component(std::string(4096, 'a'), 0), 4096)), HasSubstr("name"));
  EXPECT_THAT(refusal(composite("\x12\x7f", 0)), HasSubstr("cut off"));
  EXPECT_THAT(refusal(composite("\x0a\x01x", 4096)), HasSubstr("field 1 of the wrong kind"));
  EXPECT_THAT(refusal(composite("\x12\x02\x08\x01", 4096)), HasSubstr("field 1 of the wrong kind"));
  EXPECT_THAT(refusal(composite("\x0b", 4096)), HasSubstr("garbled"));  // a group
  EXPECT_THAT(refusal(composite(std::string("\x08") + std::string(10, '\xff'), 0)),
              HasSubstr("garbled"));
  std::string many;
  for (int i = 0; i <= 1024; ++i) many += component("a", static_cast<uint64_t>(i) * 512);
  EXPECT_THAT(refusal(composite(many, 1 << 30)), HasSubstr("more than 1024"));
  const std::string whole = composite(component("abc", 0) + component("b", 512, 1, 3), 4096);
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_NE(refusal(whole.substr(0, length)), "parsed") << length;
  }
}

class CompositeDiskTest : public testing::Test {
 protected:
  /// Over files of random bytes; the second one is read-only.
  std::unique_ptr<CompositeDisk> open(bool read_only = false) {
    const CompositeDescriptor descriptor{
        .length = 60'000,
        .components = {
            {.path = "a", .offset = 0, .length = 10'240, .file_offset = 0, .writable = true},
            {.path = "b", .offset = 10'240, .length = 1'000, .file_offset = 7, .writable = false},
            {.path = "c", .offset = 11'240, .length = 40'000, .file_offset = 512, .writable = true},
            {.path = "d", .offset = 51'240, .length = 8'760, .file_offset = 0, .writable = true}}};
    model_.clear();
    std::vector<std::unique_ptr<Disk>> files;
    for (const CompositeComponent& part : descriptor.components) {
      const std::string bytes =
          test::mixed_bytes(driver_.random(), part.file_offset + part.length + 100, 500);
      model_ += bytes.substr(part.file_offset, part.length);
      const std::string path = folder_.write(part.path, bytes);
      files.push_back(std::make_unique<Counting>(driver_.open_raw(path, !part.writable), *this));
    }
    auto disk = CompositeDisk::create(descriptor, std::move(files), read_only, "disk.composite");
    EXPECT_TRUE(disk) << disk.error().what();
    return std::move(*disk);
  }

  /// Counts the flushes, and may fail them.
  class Counting final : public Disk {
   public:
    Counting(std::unique_ptr<Disk> below, CompositeDiskTest& test)
        : below_(std::move(below)), test_(test) {}
    uint64_t size() const override { return below_->size(); }
    DiskTopology topology() const override { return below_->topology(); }
    void start(DiskRequest& request) override {
      test_.flushes_ += request.kind == Kind::kFlush ? 1 : 0;
      if (request.kind == Kind::kFlush && test_.flushes_fail_) return failed_.push_back(&request);
      below_->start(request);
    }
    void submit() override {
      for (DiskRequest* request : std::exchange(failed_, {})) request->disk_done(EIO);
      below_->submit();
    }
    void on_batch(std::function<void()> told) override { below_->on_batch(std::move(told)); }

   private:
    std::unique_ptr<Disk> below_;
    CompositeDiskTest& test_;
    std::vector<DiskRequest*> failed_;
  };

  test::TemporaryFolder folder_;
  test::DiskDriver driver_;
  std::string model_;
  int flushes_ = 0;
  bool flushes_fail_ = false;
};

TEST_F(CompositeDiskTest, ReadsAcrossBorders) {
  auto disk = open();
  driver_.compare(*disk, model_, 2000, 60'000);
  EXPECT_EQ(driver_.read(*disk, 59'999, 2), "errno 22");
}

TEST_F(CompositeDiskTest, WritesGoToTheirComponents) {
  auto disk = open();
  auto& random = driver_.random();
  for (int i = 0; i < 500; ++i) {
    const uint64_t start = i % 2 == 0 ? 0 : 11'240;
    const uint64_t end = i % 2 == 0 ? 10'240 : 60'000;
    const uint64_t length = random() % (end - start + 1);
    const uint64_t offset = start + random() % (end - start - length + 1);
    if (i % 5 == 0) {
      ASSERT_EQ(driver_.run(*disk, Kind::kWriteZeroes, offset, length), 0);
      model_.replace(offset, length, length, '\0');
    } else {
      const std::string text = test::mixed_bytes(random, length, 100);
      ASSERT_EQ(driver_.write(*disk, offset, text), 0);
      model_.replace(offset, length, text);
    }
  }
  driver_.compare(*disk, model_, 200, 60'000);
  EXPECT_EQ(folder_.read("a").substr(0, 10'240), model_.substr(0, 10'240));
  EXPECT_EQ(folder_.read("c").substr(512, 40'000), model_.substr(11'240, 40'000));
}

TEST_F(CompositeDiskTest, AWriteToAReadOnlyComponentFails) {
  auto disk = open();
  EXPECT_EQ(driver_.write(*disk, 10'239, "xyz"), EROFS);
  EXPECT_EQ(driver_.run(*disk, Kind::kDiscard, 10'300, 512), EROFS);
  EXPECT_EQ(driver_.run(*disk, Kind::kWriteZeroes, 10'300, 512), EROFS);
  EXPECT_EQ(driver_.read(*disk, 10'240, 1000), model_.substr(10'240, 1000));
  disk = open(true);
  EXPECT_EQ(driver_.write(*disk, 0, "x"), EROFS);
  EXPECT_EQ(driver_.run(*disk, Kind::kFlush), 0);
}

TEST_F(CompositeDiskTest, AFlushReachesWhatWasWritten) {
  auto disk = open();
  EXPECT_EQ(driver_.run(*disk, Kind::kFlush), 0);
  EXPECT_EQ(flushes_, 0);
  EXPECT_EQ(driver_.write(*disk, 51'000, std::string(1000, 'w')), 0);
  EXPECT_EQ(driver_.run(*disk, Kind::kFlush), 0);
  EXPECT_EQ(flushes_, 2);
  EXPECT_EQ(driver_.run(*disk, Kind::kFlush), 0);
  EXPECT_EQ(flushes_, 2);
  EXPECT_EQ(driver_.run(*disk, Kind::kDiscard, 0, 4096), 0);
  flushes_fail_ = true;
  EXPECT_EQ(driver_.run(*disk, Kind::kFlush), EIO);
  EXPECT_EQ(flushes_, 3);
  flushes_fail_ = false;
  EXPECT_EQ(driver_.run(*disk, Kind::kFlush), 0);
  EXPECT_EQ(flushes_, 4);
}

TEST_F(CompositeDiskTest, TwoFlushesAtOnceBothReachWhatWasWritten) {
  auto disk = open();
  EXPECT_EQ(driver_.write(*disk, 0, "w"), 0);
  test::DriverRequest flushes[2];
  for (auto& flush : flushes) flush.kind = Kind::kFlush;
  for (auto& flush : flushes) disk->start(flush);
  disk->submit();
  while (flushes[0].result < 0 || flushes[1].result < 0) {
    ASSERT_TRUE(driver_.loop().run_once(std::chrono::seconds(10)));
  }
  EXPECT_EQ(flushes_, 2);
}

TEST_F(CompositeDiskTest, TellsOfABatch) {
  auto disk = open();
  int batches = 0;
  disk->on_batch([&] { ++batches; });
  EXPECT_EQ(driver_.read(*disk, 0, 60'000), model_);
  EXPECT_GE(batches, 1);
}

TEST_F(CompositeDiskTest, ExtentsAreThoseOfTheComponents) {
  folder_.write("hole", "");
  ASSERT_EQ(::truncate(folder_.path("hole").c_str(), 1 << 20), 0);
  folder_.write("data", std::string(4096, 'd'));
  std::vector<std::unique_ptr<Disk>> files;
  files.push_back(driver_.open_raw(folder_.path("hole"), true));
  files.push_back(driver_.open_raw(folder_.path("data"), true));
  auto disk =
      CompositeDisk::create({.length = (1 << 20) + 4096,
                             .components = {{.path = "hole", .offset = 0, .length = 1 << 20},
                                            {.path = "data", .offset = 1 << 20, .length = 4096}}},
                            std::move(files), true, "disk.composite");
  ASSERT_TRUE(disk);
  const DiskRequest::Extent hole = driver_.extent(**disk, 4096, (1 << 20));
  EXPECT_TRUE(hole.is_zero);
  EXPECT_EQ(hole.length, (1u << 20) - 4096);
  EXPECT_FALSE(driver_.extent(**disk, 1 << 20, 4096).is_zero);
}

TEST_F(CompositeDiskTest, RefusesAComponentThatIsTooShort) {
  folder_.write("short", std::string(4095, 's'));
  std::vector<std::unique_ptr<Disk>> files;
  files.push_back(driver_.open_raw(folder_.path("short"), true));
  auto disk = CompositeDisk::create(
      {.length = 4096, .components = {{.path = "short", .offset = 0, .length = 4096}}},
      std::move(files), true, "disk.composite");
  ASSERT_FALSE(disk);
  EXPECT_THAT(disk.error().what(),
              AllOf(HasSubstr("disk.composite"), HasSubstr("short has 4095 bytes"),
                    HasSubstr("should have 4096")));
}

}  // namespace
}  // namespace crosvm
