#include "disk/guarded_disk.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "disk/open_disk.h"
#include "disk/temporary_file.h"

namespace crosvm {
namespace {

using test::TemporaryFile;
using Kind = DiskRequest::Kind;

struct Write final : DiskRequest {
  Write(uint64_t at, std::string& text) {
    kind = Kind::kWrite;
    offset = at;
    length = text.size();
    auto bytes = std::as_writable_bytes(std::span(text));
    // In two parts, as a driver may do.
    buffers = {GuestSlice::over(bytes.first(3)), GuestSlice::over(bytes.subspan(3))};
  }
  void disk_done(int error) override { result = error; }
  int result = -1;
};

class GuardedDiskTest : public ::testing::Test {
 protected:
  void open(const DiskOptions& options) {
    AsyncFiles files = *AsyncFiles::create(*loop_, {});
    auto disk = open_disk(borrowed(file_.fd()), options, files, nullptr);
    ASSERT_TRUE(disk) << disk.error().what();
    disk_ = std::move(*disk);
  }
  int write(uint64_t at, std::string text) {
    Write request(at, text);
    disk_->start(request);
    disk_->submit();
    while (request.result < 0) EXPECT_TRUE(loop_->run_once(std::chrono::seconds(10)));
    return request.result;
  }
  static std::string sector(std::string text) {
    text.resize(512);
    return text;
  }

  TemporaryFile file_{1 << 20};
  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
  std::unique_ptr<Disk> disk_;
};

TEST_F(GuardedDiskTest, ARawDiskStaysOne) {
  open({.object = "disk.img"});
  EXPECT_EQ(write(0, sector("a boot sector")), 0);
  EXPECT_EQ(write(0, sector("QFI\xfb")), EIO);
  EXPECT_EQ(write(0, sector("composite_disk\x1d")), EIO);
  EXPECT_EQ(write(0, "QFI\xfb"), EIO);  // a part of what may become one
  EXPECT_EQ(write(4, sector("x")), EIO);
  EXPECT_EQ(file_.read(0, 13), "a boot sector");
  EXPECT_EQ(write(512, sector("QFI\xfb")), 0);  // elsewhere it means nothing
  EXPECT_EQ(write(0, std::string(8192, 'y')), 0);
  EXPECT_EQ(file_.read(0, 8192), std::string(8192, 'y'));
}

TEST_F(GuardedDiskTest, TheUserMaySayThatItIsRaw) {
  open({.object = "disk.img", .format = ImageFormat::kRaw});
  EXPECT_EQ(write(0, sector("QFI\xfb")), 0);
  open({.object = "disk.img", .format = ImageFormat::kRaw});  // and must from now on
}

}  // namespace
}  // namespace crosvm
