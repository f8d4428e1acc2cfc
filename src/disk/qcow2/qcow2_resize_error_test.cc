// A disk that cannot get longer because the host refuses a write: it has its former size, and its
// image nothing that the longer one would have needed.

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <string>

#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_rig.h"

namespace crosvm {
namespace {

using test::MemoryFile;
using test::Qcow2Rig;
using Kind = DiskRequest::Kind;

constexpr uint64_t kSize = (40 << 10) + 512;  // not the end of a cluster
constexpr uint64_t kLonger = 5 << 20;         // its L1 table takes several clusters

enum class Image { kPlain, kBacked, kBackedVersion2, kRawData };
enum class Host { kRefusesOne, kRefusesFromThenOn, kDies };

std::string name_of(Image image) {
  constexpr std::array kNames = {"Plain", "Backed", "BackedVersion2", "RawData"};
  return kNames[static_cast<size_t>(image)];
}

class FailedGrowth {
 public:
  FailedGrowth(Image image, Host host) : image_(image), host_(host), rig_(3) {
    Qcow2CreateOptions options{.size = kSize, .cluster_size = 512};
    if (image == Image::kBacked || image == Image::kBackedVersion2) {
      rig_.backing = std::make_unique<MemoryFile>();
      rig_.backing->set_bytes(std::vector<std::byte>(kSize * 8, std::byte{'b'}));
      options.backing_name = options.backing_format = "raw";
      options.version = image == Image::kBacked ? 3 : 2;
    }
    if (image == Image::kRawData) {
      options.data_file_name = "data";
      options.raw_data = true;
      rig_.data_file = std::make_unique<MemoryFile>(kSize);
    }
    rig_.make(options);
    rig_.limits = {.l2_bytes = 0, .block_bytes = 0};
    rig_.open();
    EXPECT_EQ(rig_.write(0, std::string(kSize, 'a')), 0);
    EXPECT_EQ(rig_.flush(), 0);
    l1_entries_ = header().l1_entries;
  }

  /// Whether the `number`th write or flush, which is refused, was one of those that it takes.
  bool refuse(uint64_t number) {
    uint64_t seen = 0;
    rig_.queue.fault = [&](const DiskRequest& request) {
      if (request.kind != Kind::kWrite && request.kind != Kind::kFlush) return 0;
      ++seen;
      const bool fails = seen == number || (seen > number && host_ != Host::kRefusesOne);
      if (fails && request.kind == Kind::kFlush) has_lost_flush_ = true;
      return fails ? ENOSPC : 0;
    };
    const int error = rig_.resize(kLonger);
    if (seen < number) {
      EXPECT_EQ(error, 0);
      return false;
    }
    // What gives space back after the last commit may be refused: it is no matter of the size.
    if (error == 0) return true;
    EXPECT_EQ(error, ENOSPC);
    EXPECT_EQ(rig_.disk->size(), kSize);
    host_ == Host::kDies ? die() : go_on();
    return true;
  }

 private:
  Qcow2Header header() const {
    const auto& all = rig_.file.bytes();
    auto header = parse_qcow2_header(std::span(all).first(512), all.size(), "test.qcow2");
    EXPECT_TRUE(header);
    return header.value_or(Qcow2Header{});
  }
  void expect_contents() {
    EXPECT_TRUE(rig_.read(0, kSize) == std::string(kSize, 'a'));
    ASSERT_EQ(rig_.resize(kLonger), 0);
    EXPECT_TRUE(rig_.read(kSize, kSize * 9) == std::string(kSize * 9, '\0'));
  }
  void die() {
    rig_.is_dead = true;
    rig_.close();
    rig_.is_dead = false;
    rig_.queue.fault = nullptr;
    const Qcow2Report report = rig_.check();
    EXPECT_EQ(report.errors, 0u) << report.messages.front();
    rig_.open();
    // A header that the host refused may have been written all the same, with all it needs.
    EXPECT_TRUE(rig_.disk->size() == kSize || rig_.disk->size() == kLonger);
    expect_contents();
    rig_.close();
    EXPECT_EQ(rig_.check().errors, 0u);
  }
  void go_on() {
    rig_.queue.fault = nullptr;
    while (rig_.queue.end_one()) {
    }
    // The guest's own bytes may have been among those that did not reach the storage.
    if (has_lost_flush_) {
      EXPECT_EQ(rig_.flush(), ENOSPC);
    }
    EXPECT_EQ(rig_.flush(), 0);
    rig_.close();
    rig_.expect_clean();
    EXPECT_EQ(header().size, kSize);
    if (host_ == Host::kRefusesOne || image_ == Image::kPlain) {
      EXPECT_EQ(header().l1_entries, l1_entries_);
      EXPECT_LE(rig_.check().data_clusters, (kSize + 511) / 512);
    }
    rig_.open();
    EXPECT_EQ(rig_.disk->size(), kSize);
    expect_contents();
    rig_.close();
    rig_.expect_clean();
  }

  const Image image_;
  const Host host_;
  Qcow2Rig rig_;
  uint32_t l1_entries_ = 0;
  bool has_lost_flush_ = false;  // which no flush of the guest's has been told of
};

class Qcow2ResizeErrorTest : public testing::TestWithParam<Image> {};

TEST_P(Qcow2ResizeErrorTest, NothingIsKeptForADiskThatCannotGetLonger) {
  for (const Host host : {Host::kRefusesOne, Host::kRefusesFromThenOn, Host::kDies}) {
    uint64_t number = 1;
    // Those of the middle are alike.
    const uint64_t all_of = std::getenv("CROSVM_TEST_FULL") != nullptr ? UINT64_MAX : 10;
    while (FailedGrowth(GetParam(), host).refuse(number)) {
      ASSERT_FALSE(HasFailure()) << "write " << number << ", host " << static_cast<int>(host);
      number += 1 + number / all_of;
    }
    EXPECT_GT(number, 3u);
  }
}

INSTANTIATE_TEST_SUITE_P(Images, Qcow2ResizeErrorTest,
                         testing::Values(Image::kPlain, Image::kBacked, Image::kBackedVersion2,
                                         Image::kRawData),
                         [](const auto& info) { return name_of(info.param); });

}  // namespace
}  // namespace crosvm
