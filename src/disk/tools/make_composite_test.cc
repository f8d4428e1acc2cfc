#include "disk/tools/make_composite.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "disk/disk_driver.h"
#include "disk/tools/make_qcow2.h"
#include "disk/tools/tool_image.h"

namespace crosvm {
namespace {

using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

std::string refusal(const TemporaryFolder& folder, std::vector<std::string_view> partitions) {
  const auto made = make_composite(folder.path("disk"), partitions);
  EXPECT_EQ(folder.read("disk"), "");
  return made ? "" : made.error().what();
}

TEST(MakeCompositeTest, TakesPartitionsApart) {
  auto partition = parse_partition("boot:a.img");
  ASSERT_TRUE(partition);
  EXPECT_EQ(partition->label, "boot");
  EXPECT_EQ(partition->path, "a.img");
  EXPECT_FALSE(partition->writable);
  EXPECT_EQ(partition->guid, std::nullopt);
  partition = parse_partition("root:b.img:writable:0FC63DAF-8483-4772-8E79-3D69D8477DE4:more:x");
  ASSERT_TRUE(partition);
  EXPECT_TRUE(partition->writable);
  EXPECT_EQ(partition->guid, gpt::parse_guid("0fc63daf-8483-4772-8e79-3d69d8477de4").value());
  partition = parse_partition("root:b.img::0fc63daf-8483-4772-8e79-3d69d8477de4");
  ASSERT_TRUE(partition);
  EXPECT_FALSE(partition->writable);
  EXPECT_TRUE(partition->guid);
  for (const char* bad : {"", "root", "root:", "root:a:rw", "root:a:Writable", "root:a::guid"}) {
    EXPECT_FALSE(parse_partition(bad)) << bad;
  }
}

TEST(MakeCompositeTest, SizesAreThoseOfTheDisksInTheImages) {
  TemporaryFolder folder;
  const std::string raw(8192, 'r');
  folder.write("a.img", raw);
  // 12 KiB of an Android sparse image of one fill.
  std::string sparse("\x3a\xff\x26\xed\x01\0\0\0\x1c\0\x0c\0\0\x10\0\0\x03\0\0\0\x01\0\0\0\0\0\0\0",
                     28);
  sparse += std::string("\xc2\xca\0\0\x03\0\0\0\x10\0\0\0ssss", 16);
  folder.write("b.img", sparse);
  const std::string a = "a:" + folder.path("a.img") + ":writable";
  const std::string b = "b:" + folder.path("b.img");
  const auto made = make_composite(folder.path("disk"), std::vector<std::string_view>{a, b});
  ASSERT_TRUE(made) << made.error().what();
  auto image = ToolImage::open(folder.path("disk"), {.read_only = false});
  ASSERT_TRUE(image) << image.error().what();
  EXPECT_EQ(image->format(), ImageFormat::kComposite);
  EXPECT_EQ(image->disk().size(), 20480u + 8192 + 12288 + 20480);
}

// "link/.." is not where the link is.
TEST(MakeCompositeTest, NamesLeadOutOfFoldersThatAreLinks) {
  TemporaryFolder folder;
  std::filesystem::create_directories(folder.path("far/deep"));
  std::filesystem::create_directory(folder.path("near"));
  std::filesystem::create_directory_symlink("far/deep", folder.path("link"));
  folder.write("a.img", std::string(8192, 'a'));
  folder.write("near/b.img", std::string(8192, 'b'));
  folder.write("far/c.img", std::string(8192, 'c'));  // link/../c.img
  const auto former = std::filesystem::current_path();
  std::filesystem::current_path(folder.path(""));
  for (const std::string image : {"link/disk", "near/disk", "disk"}) {
    const auto made = make_composite(
        image, std::vector<std::string_view>{"a:a.img", "b:near/b.img", "c:link/../c.img"});
    EXPECT_TRUE(made) << made.error().what();
    const auto opened = ToolImage::open(image, {.allowed = {folder.path("")}});
    EXPECT_TRUE(opened) << opened.error().what();
    for (const char* part : {"a.img", "near/b.img", "far/c.img"}) {
      EXPECT_TRUE(opened && opened->consists_of(part)) << image << " " << part;
    }
    const std::string top = image + ".qcow2";
    EXPECT_TRUE(make_qcow2({.path = top, .backing_file = "link/../c.img"}));
    const auto over = ToolImage::open(top, {.allowed = {folder.path("")}});
    EXPECT_TRUE(over && over->consists_of("far/c.img")) << top;
  }
  std::filesystem::current_path(former);
}

TEST(MakeCompositeTest, ADiskMayHaveAColonInItsName) {
  TemporaryFolder folder;
  const std::string a = "a:" + folder.write("a.img", std::string(5000, 'r'));
  const std::string disk = folder.path("x:y.composite");
  ASSERT_TRUE(make_composite(disk, std::vector<std::string_view>{a}));
  const auto opened = ToolImage::open(disk, {});
  EXPECT_TRUE(opened) << opened.error().what();
}

TEST(MakeCompositeTest, RefusesBadPartitions) {
  TemporaryFolder folder;
  folder.write("a.img", std::string(5000, 'r'));
  const std::string file = folder.path("a.img");
  const std::string a = "a:" + file;
  const std::string writable = a + ":writable";
  const std::string missing = "b:" + folder.path("none");
  EXPECT_THAT(refusal(folder, {a, a}), AllOf(HasSubstr("label a"), HasSubstr("give one another")));
  EXPECT_THAT(refusal(folder, {writable}), AllOf(HasSubstr(file), HasSubstr("truncate")));
  EXPECT_THAT(refusal(folder, {missing}), HasSubstr("No such file"));
  EXPECT_THAT(refusal(folder, {"b"}), HasSubstr("LABEL:FILE"));
}

TEST(MakeCompositeTest, WhatIsWrittenToIsOnePartitionAlone) {
  TemporaryFolder folder;
  const std::string file = folder.write("a.img", std::string(8192, 'r'));
  std::filesystem::create_symlink("a.img", folder.path("link"));
  const std::string a = "a:" + file + ":writable";
  const std::string b = "b:" + folder.path("link");
  for (const std::vector<std::string_view>& both : {std::vector<std::string_view>{a, b}, {b, a}}) {
    const auto made = make_composite(folder.path("disk"), both);
    ASSERT_FALSE(made);
    EXPECT_THAT(made.error().what(), HasSubstr("give each a file of its own"));
  }
  const std::string read_only = "a:" + file;
  EXPECT_TRUE(make_composite(folder.path("disk"), std::vector<std::string_view>{read_only, b}));
  EXPECT_TRUE(ToolImage::open(folder.path("disk"), {}));
}

TEST(MakeCompositeTest, APartitionThatAVmWritesIsNotOpened) {
  TemporaryFolder folder;
  folder.write("a.img", std::string(8192, 'r'));
  auto vm = ToolImage::open(folder.path("a.img"), {.read_only = false});
  ASSERT_TRUE(vm);
  EXPECT_THAT(refusal(folder, {std::string_view("a:" + folder.path("a.img"))}),
              HasSubstr("being written by another process"));
}

TEST(MakeCompositeTest, APartitionIsNotWrittenOver) {
  TemporaryFolder folder;
  const std::string base(8192, 'r');
  for (const char* name : {"disk", "disk.filler", "disk.header", "disk.footer"}) {
    const std::string file = folder.write(name, base);
    const std::string top = folder.path("top.qcow2");
    ASSERT_TRUE(make_qcow2({.path = top, .backing_file = file}));
    for (const std::string& partition : {"a:" + file, "a:" + file + ":writable", "a:" + top}) {
      const std::vector<std::string_view> partitions = {partition};
      const auto made = make_composite(folder.path("disk"), partitions);
      ASSERT_FALSE(made) << partition;
      EXPECT_THAT(made.error().what(), AllOf(HasSubstr(file + ": would be"), HasSubstr("name")));
      EXPECT_EQ(folder.read(name), base);
    }
    std::filesystem::remove(file);
  }
}

TEST(MakeCompositeTest, WhatIsNoFileIsNotReplaced) {
  TemporaryFolder folder;
  const std::string a = "a:" + folder.write("a.img", std::string(8192, 'r'));
  for (const char* name : {"disk", "disk.filler", "disk.header", "disk.footer"}) {
    ASSERT_EQ(::mkfifo(folder.path(name).c_str(), 0600), 0);
    const auto made = make_composite(folder.path("disk"), std::vector<std::string_view>{a});
    ASSERT_FALSE(made) << name;
    EXPECT_THAT(made.error().what(), HasSubstr(folder.path(name) + " is there and not a file"));
    EXPECT_TRUE(std::filesystem::is_fifo(folder.path(name)));
    std::filesystem::remove(folder.path(name));
  }
}

}  // namespace
}  // namespace crosvm
