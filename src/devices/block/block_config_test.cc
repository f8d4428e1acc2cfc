#include "devices/block/block_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm {
namespace {

using testing::HasSubstr;

Result<BlockConfig> parse(std::string_view text) {
  return BlockConfig::parse(TRY(KeyValues::parse(text)));
}
std::string error_of(std::string_view text) {
  auto config = parse(text);
  return config ? "no error" : config.error().what();
}

TEST(BlockConfigTest, ReadsEveryKey) {
  auto config = parse(
      "disk.img,ro,root,sparse=false,direct,lock=false,block-size=4096,id=serial,multiple-workers,"
      "async-executor=uring,packed-queue,pci-address=00:05.0,dontcache");
  ASSERT_TRUE(config) << config.error().what();
  EXPECT_EQ(config->path, "disk.img");
  EXPECT_TRUE(config->read_only && config->root && config->direct && config->multiple_workers &&
              config->packed_queue && config->dontcache);
  EXPECT_FALSE(config->sparse || config->lock);
  EXPECT_EQ(config->block_size, 4096U);
  EXPECT_EQ(config->id, "serial");
  EXPECT_EQ(config->async_executor, AsyncExecutor::kUring);
  EXPECT_EQ(config->pci_address, "00:05.0");
}

TEST(BlockConfigTest, DefaultsAreThoseOfAWritableDisk) {
  auto config = parse("path=a");
  ASSERT_TRUE(config);
  EXPECT_TRUE(config->sparse && config->lock);
  EXPECT_FALSE(config->read_only || config->root || config->direct || config->multiple_workers ||
               config->packed_queue || config->dontcache);
  EXPECT_EQ(config->block_size, 512U);
  EXPECT_FALSE(config->id || config->async_executor || config->pci_address);
}

TEST(BlockConfigTest, OldUnderscoresAreAliases) {
  auto config = parse("path=a,o_direct,block_size=1024,async_executor=epoll");
  ASSERT_TRUE(config) << config.error().what();
  EXPECT_TRUE(config->direct);
  EXPECT_EQ(config->block_size, 1024U);
  EXPECT_EQ(config->async_executor, AsyncExecutor::kEpoll);
}

TEST(BlockConfigTest, RefusesWhatCannotBe) {
  EXPECT_THAT(error_of("ro"), HasSubstr("missing field `path`"));
  EXPECT_THAT(error_of("a,block-size=0"), HasSubstr("block-size=0: not a multiple of 512"));
  EXPECT_THAT(error_of("a,block-size=513"), HasSubstr("not a multiple of 512"));
  EXPECT_THAT(error_of("a,id=123456789012345678901"), HasSubstr("at most 20"));
  EXPECT_THAT(error_of("a,async-executor=tokio"), HasSubstr("unknown variant `tokio`"));
  EXPECT_THAT(
      error_of("a,bootindex=1"),
      HasSubstr(
          "bootindex: for firmware, by fw_cfg, and this build has neither yet; leave it out"));
  EXPECT_THAT(error_of("a,pci-address=99"), HasSubstr("pci-address"));
  EXPECT_THAT(error_of("a,colour=red"), HasSubstr("unknown field `colour`"));
}

TEST(BlockConfigTest, ItsTextParsesToTheSame) {
  for (std::string_view text :
       {"a", "path=\"a,b]\\\"c\\\\d\",ro,root,id=\"x,y\"",
        "disk.img,sparse=false,direct,lock=false,block-size=4096,multiple-workers,"
        "async-executor=auto,packed-queue,pci-address=0:5.1,dontcache"}) {
    auto config = parse(text);
    ASSERT_TRUE(config) << config.error().what();
    auto again = parse(config->to_text());
    ASSERT_TRUE(again) << config->to_text() << ": " << again.error().what();
    EXPECT_EQ(again->to_text(), config->to_text());
    EXPECT_EQ(again->path, config->path);
    EXPECT_EQ(again->id, config->id);
    EXPECT_EQ(again->lock, config->lock);
    EXPECT_EQ(again->async_executor, config->async_executor);
  }
}

TEST(BlockConfigTest, FormatsAndWhatImagesMayName) {
  auto one = *BlockConfig::parse(*KeyValues::parse("a,format=qcow2,allow-backing=/b"));
  EXPECT_EQ(one.format, ImageFormat::kQcow2);
  EXPECT_EQ(one.allow_backing, std::vector<std::string>{"/b"});
  auto two = *BlockConfig::parse(*KeyValues::parse("a,allow-backing=[/b,\"/c,d\"]"));
  EXPECT_EQ(two.allow_backing, (std::vector<std::string>{"/b", "/c,d"}));
  auto again = *BlockConfig::parse(*KeyValues::parse(two.to_text()));
  EXPECT_EQ(again.allow_backing, two.allow_backing);
  EXPECT_FALSE(BlockConfig::parse(*KeyValues::parse("a,format=vmdk")));
}

}  // namespace
}  // namespace crosvm
