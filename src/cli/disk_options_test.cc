#include "cli/disk_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/temporary_file.h"

namespace crosvm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Result<Config> config_of(std::vector<std::string_view> texts,
                         std::optional<AsyncExecutor> executor = std::nullopt) {
  std::vector<BlockConfig> disks;
  for (std::string_view text : texts) disks.push_back(TRY(parse_disk(text)));
  Config config;
  TRY(add_disks(disks, executor, config));
  return config;
}

TEST(DiskOptionsTest, LettersGoOnAfterZ) {
  EXPECT_EQ(disk_letters(0), "a");
  EXPECT_EQ(disk_letters(25), "z");
  EXPECT_EQ(disk_letters(26), "aa");
  EXPECT_EQ(disk_letters(701), "zz");
  EXPECT_EQ(disk_letters(702), "aaa");
}

TEST(DiskOptionsTest, OldFlagsDecideWhatTheyStandFor) {
  auto disk = parse_disk("a.img,root,id=x", ForcedDiskKeys{.read_only = true, .root = false});
  ASSERT_TRUE(disk) << disk.error().what();
  EXPECT_TRUE(disk->read_only);
  EXPECT_FALSE(disk->root);
  EXPECT_EQ(disk->id, "x");
  disk = parse_disk("a.img,ro", ForcedDiskKeys{.read_only = false, .root = true});
  ASSERT_TRUE(disk);
  EXPECT_FALSE(disk->read_only);
  EXPECT_TRUE(disk->root);
}

TEST(DiskOptionsTest, DisksBecomeRequestsInOrder) {
  auto config = config_of({"a.img", "b.img,ro,root,pci-address=00:07.0", "c.img"});
  ASSERT_TRUE(config) << config.error().what();
  ASSERT_EQ(config->disks.size(), 3U);
  EXPECT_EQ(config->disks[0].type, "block");
  EXPECT_EQ(config->disks[0].name, "block0");
  EXPECT_EQ(config->disks[0].text, "path=\"a.img\"");
  EXPECT_EQ(config->disks[1].name, "block1");
  EXPECT_EQ(config->disks[1].pci_address, "00:07.0");
  EXPECT_EQ(config->disks[2].pci_address, std::nullopt);
  EXPECT_EQ(config->root_parameter, "root=/dev/vdb ro");
}

TEST(DiskOptionsTest, ARootIsNotNeeded) {
  EXPECT_EQ(config_of({"a.img"})->root_parameter, std::nullopt);
  EXPECT_EQ(config_of({"a.img,root"})->root_parameter, "root=/dev/vda rw");
  EXPECT_THAT(config_of({})->disks, IsEmpty());
}

TEST(DiskOptionsTest, OnlyOneDiskIsTheRoot) {
  auto config = config_of({"a.img,root", "b.img", "c.img,root"});
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().what(), HasSubstr("disks a.img and c.img are both the root"));
}

TEST(DiskOptionsTest, TheExecutorIsForDisksThatNameNone) {
  auto config = config_of({"a.img", "b.img,async-executor=uring"}, AsyncExecutor::kEpoll);
  ASSERT_TRUE(config);
  EXPECT_THAT(config->disks[0].text, HasSubstr("async-executor=epoll"));
  EXPECT_THAT(config->disks[1].text, HasSubstr("async-executor=uring"));
}

/// A disk and the ways to name it.
class SharedDiskTest : public testing::Test {
 protected:
  SharedDiskTest() { ::mkfifo(fifo_.c_str(), 0600); }
  ~SharedDiskTest() override { ::unlink(fifo_.c_str()); }
  static std::string error_of(const std::vector<std::string>& texts) {
    auto config = config_of({texts.begin(), texts.end()});
    return config ? "no error" : config.error().what();
  }

  test::TemporaryFile disk_{4096};
  std::string path_ = disk_.path();
  std::string fifo_ = path_ + ".fifo";
};

TEST_F(SharedDiskTest, AFileThatIsWrittenIsOneDisk) {
  const std::string same = "same file, and one would be written behind the other's back";
  EXPECT_THAT(error_of({path_, "other.img", path_}),
              AllOf(HasSubstr("disks " + path_ + " (block0) and " + path_ + " (block2)"),
                    HasSubstr(same), HasSubstr("give ro to both")));
  EXPECT_THAT(error_of({path_ + ",ro", path_}), HasSubstr(same));
  const std::string link = path_ + ".link";
  ASSERT_EQ(::link(path_.c_str(), link.c_str()), 0);
  EXPECT_THAT(error_of({path_, link}), HasSubstr(same));
  ::unlink(link.c_str());
  const std::string descriptor = "/proc/self/fd/" + std::to_string(disk_.fd().get());
  EXPECT_THAT(error_of({descriptor, descriptor}), HasSubstr(same));
  EXPECT_THAT(error_of({path_, descriptor + ",ro"}), HasSubstr(same));
}

TEST_F(SharedDiskTest, OneThatIsReadMayBeSeveral) {
  EXPECT_EQ(error_of({path_ + ",ro", path_ + ",ro"}), "no error");
  EXPECT_EQ(error_of({path_ + ",lock=false", path_}), "no error");  // as lock=false says: at a risk
}

TEST_F(SharedDiskTest, WhatIsNoDiskIsLeftToItsOpening) {
  EXPECT_EQ(error_of({"none.img", "none.img"}), "no error");
  EXPECT_EQ(error_of({fifo_, fifo_}), "no error");
}

}  // namespace
}  // namespace crosvm
