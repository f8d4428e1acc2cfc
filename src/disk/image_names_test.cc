#include "disk/image_names.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace crosvm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

/// images/disk, images/base, images/sub/inner, outside/secret, and links between them.
class ImageNamesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "names_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    fs::create_directories(root_ / "images/sub");
    fs::create_directories(root_ / "outside");
    for (const char* file : {"images/disk", "images/base", "images/sub/inner", "outside/secret"}) {
      std::ofstream(root_ / file) << file;
    }
    fs::create_symlink("../outside/secret", root_ / "images/escape");
    fs::create_symlink("base", root_ / "images/link");
    fs::create_symlink("images", root_ / "same");
  }
  void TearDown() override { fs::remove_all(root_); }

  ImageNames names(std::vector<std::string> allowed = {}, bool read_only = false) {
    return ImageNames(
        {.path = root_ / "images/disk", .allowed = std::move(allowed), .read_only = read_only});
  }
  static std::string refusal(ImageNames& names, const FileBroker::Request& request) {
    auto file = names.open(request);
    return file ? "opened" : file.error().what();
  }
  static std::string contents(const FileBroker::File& file) {
    std::string text(64, '\0');
    text.resize(*read_full_at(file.fd, 0, std::as_writable_bytes(std::span(text)), "file"));
    return text;
  }

  fs::path root_;
};

TEST_F(ImageNamesTest, OpensWhatLiesBelowTheFolderOfTheDisk) {
  auto broker = names();
  auto base = broker.open({.name = "base"});
  ASSERT_TRUE(base) << base.error().what();
  EXPECT_EQ(contents(*base), "images/base");
  EXPECT_EQ(::fcntl(base->fd.get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  EXPECT_TRUE(broker.open({.name = "link"}));
  EXPECT_TRUE(broker.open({.name = root_ / "images/base"}));
  EXPECT_TRUE(broker.open({.name = root_ / "same/base"}));  // the same folder by another name
  auto inner = broker.open({.name = "sub/inner"});
  ASSERT_TRUE(inner);
  // A name in a file starts at the folder of that file.
  auto back = broker.open({.from = inner->number, .name = "../base"});
  ASSERT_TRUE(back) << back.error().what();
  EXPECT_EQ(contents(*back), "images/base");
}

TEST_F(ImageNamesTest, NothingElseIsOpened) {
  auto broker = names();
  for (std::string name : {std::string("../outside/secret"), std::string("escape"),
                           (root_ / "outside/secret").string(),
                           std::string("sub/../../outside/secret"), std::string("/etc/passwd")}) {
    EXPECT_THAT(refusal(broker, {.name = name}), HasSubstr("lies outside the folder of")) << name;
  }
  EXPECT_THAT(refusal(broker, {.name = "nbd:localhost:10809"}), HasSubstr("no path"));
  EXPECT_THAT(refusal(broker, {.name = "json:{\"driver\":\"file\"}"}), HasSubstr("no path"));
  EXPECT_THAT(refusal(broker, {.name = ""}), HasSubstr("no path"));
  EXPECT_THAT(refusal(broker, {.name = std::string("base\0x", 6)}), HasSubstr("no path"));
  EXPECT_THAT(refusal(broker, {.name = "none"}), HasSubstr("No such file"));
  EXPECT_THAT(refusal(broker, {.name = "sub"}), HasSubstr("directory"));
  EXPECT_THAT(refusal(broker, {.from = 7, .name = "base"}), HasSubstr("nobody knows"));
  EXPECT_THAT(refusal(broker, {.name = "a\n\x1b[31mb"}), HasSubstr("a??[31mb"));
}

TEST_F(ImageNamesTest, TheUserLetsMoreIn) {
  auto file = names({root_ / "outside/secret"});
  auto secret = file.open({.name = "../outside/secret"});
  ASSERT_TRUE(secret) << secret.error().what();
  EXPECT_EQ(contents(*secret), "outside/secret");
  auto folder = names({root_ / "outside"});
  EXPECT_TRUE(folder.open({.name = "escape"}));
  auto other = names({root_ / "out"});  // no folder, and a part of a name
  EXPECT_FALSE(other.open({.name = "escape"}));
}

TEST_F(ImageNamesTest, OpensForWritingWhereTheDiskIsWritten) {
  auto broker = names();
  auto data = broker.open({.name = "base", .writable = true});
  ASSERT_TRUE(data);
  EXPECT_EQ(::fcntl(data->fd.get(), F_GETFL) & O_ACCMODE, O_RDWR);
  // It is locked now, for writing.
  auto other = names();
  EXPECT_THAT(refusal(other, {.name = "base"}),
              AllOf(HasSubstr("being written by another process"), HasSubstr("lock=false")));
  ImageNames tool({.path = root_ / "images/disk", .allowed = {}, .for_tool = true});
  EXPECT_THAT(refusal(tool, {.name = "base"}),
              AllOf(HasSubstr("end that one first"), Not(HasSubstr("lock=false"))));
  EXPECT_THAT(refusal(tool, {.name = "escape"}), HasSubstr("give --allow-backing "));
  auto read_only = names({}, true);
  auto inner = read_only.open({.name = "sub/inner", .writable = true});
  ASSERT_TRUE(inner);
  EXPECT_EQ(::fcntl(inner->fd.get(), F_GETFL) & O_ACCMODE, O_RDONLY);
}

TEST_F(ImageNamesTest, WhatIsWrittenToIsOneFileOfADiskAlone) {
  for (const bool writable : {false, true}) {
    auto broker = names();
    EXPECT_THAT(refusal(broker, {.name = "disk", .writable = writable}), HasSubstr("already"));
    ASSERT_TRUE(broker.open({.name = "sub/inner"}));
    EXPECT_EQ(refusal(broker, {.name = "sub/inner"}), "opened") << "for reading alone, both";
    EXPECT_THAT(refusal(broker, {.name = "sub/inner", .writable = true}), HasSubstr("already"));
    ASSERT_TRUE(broker.open({.name = "base", .writable = true}));
    EXPECT_THAT(refusal(broker, {.name = "link", .writable = writable}),
                AllOf(HasSubstr("'link'"), HasSubstr("a file of this disk already")));
  }
}

TEST_F(ImageNamesTest, WhatTheUserLetsInIsThere) {
  EXPECT_TRUE(names({root_ / "outside", root_ / "images/base"}).check_allowed());
  const auto checked = names({root_ / "outside", "nope"}).check_allowed();
  ASSERT_FALSE(checked);
  EXPECT_THAT(checked.error().what(),
              AllOf(HasSubstr("allow-backing=nope"), HasSubstr("No such file")));
}

TEST_F(ImageNamesTest, AChainHasAnEnd) {
  auto broker = names();
  uint32_t from = 0;
  for (unsigned depth = 1; depth <= ImageNames::kMostDeep; ++depth) {
    auto next = broker.open({.from = from, .name = "base"});
    ASSERT_TRUE(next) << depth << next.error().what();
    from = next->number;
  }
  EXPECT_THAT(refusal(broker, {.from = from, .name = "base"}), HasSubstr("circle"));
}

TEST_F(ImageNamesTest, ADescriptorHasNoFolder) {
  ImageNames broker({.path = "/proc/self/fd/0", .allowed = {root_ / "outside"}});
  EXPECT_THAT(refusal(broker, {.name = "base"}), HasSubstr("give the disk by its path"));
  EXPECT_TRUE(broker.open({.name = root_ / "outside/secret"}));
}

}  // namespace
}  // namespace crosvm
