#include "disk/image_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <span>
#include <string_view>

namespace crosvm {
namespace {

using namespace std::string_view_literals;
using testing::HasSubstr;

Fd file_of(std::string_view start) {
  Fd fd(::memfd_create("image", MFD_CLOEXEC));
  EXPECT_TRUE(write_full(fd, std::as_bytes(std::span(start)), "image"));
  return fd;
}

ImageFormat format_of(std::string_view start) {
  return detect_image_format(file_of(start), "image").value();
}

TEST(ImageFormatTest, GoesByTheFirstBytes) {
  EXPECT_EQ(format_of("QFI\xfb\0\0\0\3"sv), ImageFormat::kQcow2);
  EXPECT_EQ(format_of("\x3a\xff\x26\xed\1\0"sv), ImageFormat::kAndroidSparse);
  EXPECT_EQ(format_of("\x28\xb5\x2f\xfd"sv), ImageFormat::kZstd);
  EXPECT_EQ(format_of("\x50\x2a\x4d\x18"sv), ImageFormat::kZstd);
  EXPECT_EQ(format_of("\x5f\x2a\x4d\x18"sv), ImageFormat::kZstd);
  EXPECT_EQ(format_of("composite_disk\x1d\x08\x02"sv), ImageFormat::kComposite);
}

TEST(ImageFormatTest, EverythingElseIsRaw) {
  EXPECT_EQ(format_of(""), ImageFormat::kRaw);
  EXPECT_EQ(format_of("QFI"), ImageFormat::kRaw);
  EXPECT_EQ(format_of("composite_disk"), ImageFormat::kRaw);
  EXPECT_EQ(format_of("\x60\x2a\x4d\x18"sv), ImageFormat::kRaw);
  EXPECT_EQ(format_of(std::string(5000, '\0')), ImageFormat::kRaw);
}

}  // namespace
}  // namespace crosvm
