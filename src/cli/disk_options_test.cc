#include "cli/disk_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm {
namespace {

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

}  // namespace
}  // namespace crosvm
