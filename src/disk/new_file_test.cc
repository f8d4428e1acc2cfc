#include "disk/new_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "disk/disk_driver.h"

namespace crosvm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class NewFileTest : public ::testing::TestWithParam<NewFile::Until> {
 protected:
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path(""))) {
      all.push_back(entry.path().filename());
    }
    return all;
  }
  NewFile make(std::string_view text) const {
    auto file = NewFile::create(folder_.path("a.img"), GetParam());
    CHECK(file.has_value());
    EXPECT_TRUE(write_full(file->fd(), std::as_bytes(std::span(text)), "a.img"));
    return *std::move(file);
  }
  FileIdentity identity() const {
    struct stat status{};
    EXPECT_EQ(::stat(folder_.path("a.img").c_str(), &status), 0);
    return {status.st_dev, status.st_ino};
  }

  test::TemporaryFolder folder_;
};

INSTANTIATE_TEST_SUITE_P(, NewFileTest,
                         testing::Values(NewFile::Until::kNoName, NewFile::Until::kOtherName),
                         [](const auto& until) {
                           return until.param == NewFile::Until::kNoName ? "NoName" : "OtherName";
                         });

TEST_P(NewFileTest, HasItsNameWhenItIsComplete) {
  const mode_t former = ::umask(027);
  {
    NewFile file = make("new");
    EXPECT_FALSE(std::filesystem::exists(folder_.path("a.img")));
    ASSERT_TRUE(file.place({}));
    file.settle();
  }
  ::umask(former);
  EXPECT_THAT(names(), ElementsAre("a.img"));
  EXPECT_EQ(folder_.read("a.img"), "new");
  struct stat status{};
  ASSERT_EQ(::stat(folder_.path("a.img").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
}

TEST_P(NewFileTest, TakesThePlaceOfWhatHadTheName) {
  folder_.write("a.img", "old");
  NewFile file = make("new");
  EXPECT_EQ(folder_.read("a.img"), "old");
  ASSERT_TRUE(file.place(identity()));
  file.settle();
  EXPECT_THAT(names(), ElementsAre("a.img"));
  EXPECT_EQ(folder_.read("a.img"), "new");
}

TEST_P(NewFileTest, WhatHadTheNameMayHaveGone) {
  folder_.write("a.img", "old");
  const FileIdentity old = identity();
  NewFile file = make("new");
  std::filesystem::remove(folder_.path("a.img"));
  ASSERT_TRUE(file.place(old));
  EXPECT_THAT(names(), ElementsAre("a.img"));
  EXPECT_EQ(folder_.read("a.img"), "new");
}

// A VM may have it open.
TEST_P(NewFileTest, WhatCameMeanwhileStays) {
  {
    NewFile file = make("new");
    folder_.write("a.img", "other");
    const auto placed = file.place({});
    ASSERT_FALSE(placed);
    EXPECT_EQ(placed.error().code(), std::errc::file_exists);
    EXPECT_THAT(placed.error().what(), HasSubstr("a.img: another file has got that name"));
  }
  EXPECT_THAT(names(), ElementsAre("a.img"));
  EXPECT_EQ(folder_.read("a.img"), "other");
}

TEST_P(NewFileTest, WhatTookThePlaceOfTheOldOneMeanwhileStays) {
  folder_.write("a.img", "old");
  {
    const FileIdentity old = identity();
    NewFile file = make("new");
    folder_.write("b.img", "other");
    std::filesystem::rename(folder_.path("b.img"), folder_.path("a.img"));
    const auto placed = file.place(old);
    ASSERT_FALSE(placed);
    EXPECT_EQ(placed.error().code(), std::errc::file_exists);
  }
  EXPECT_THAT(names(), ElementsAre("a.img"));
  EXPECT_EQ(folder_.read("a.img"), "other");
}

TEST_P(NewFileTest, WithdrawnItLeavesWhatWasThere) {
  {
    NewFile file = make("new");
    ASSERT_TRUE(file.place({}));
    EXPECT_EQ(folder_.read("a.img"), "new");
    file.withdraw();
  }
  EXPECT_TRUE(names().empty());
  folder_.write("a.img", "old");
  {
    NewFile file = make("new");
    ASSERT_TRUE(file.place(identity()));
    EXPECT_EQ(folder_.read("a.img"), "new");
    file.withdraw();
  }
  EXPECT_THAT(names(), ElementsAre("a.img"));
  EXPECT_EQ(folder_.read("a.img"), "old");
}

TEST_P(NewFileTest, LeavesNothingWhenItIsGivenUp) {
  folder_.write("a.img", "old");
  {
    NewFile file = make("new");
  }
  EXPECT_THAT(names(), ElementsAre("a.img"));
  EXPECT_EQ(folder_.read("a.img"), "old");
}

TEST_P(NewFileTest, AFolderThatIsMissingIsNamed) {
  auto file = NewFile::create(folder_.path("none/a.img"), GetParam());
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().what(), HasSubstr("none/a.img: No such file or directory"));
}

TEST_P(NewFileTest, AFolderInTheWayIsAnError) {
  NewFile file = make("new");
  std::filesystem::create_directory(folder_.path("a.img"));
  EXPECT_FALSE(file.place({}));
}

TEST(NewFileKillTest, AKilledProcessLeavesNothing) {
  test::TemporaryFolder folder;
  if (!Fd(::open(folder.path("").c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600))) {
    GTEST_SKIP() << "the file system has no files without a name";
  }
  const pid_t child = ::fork();
  if (child == 0) {
    auto file = NewFile::create(folder.path("a.img"));
    if (!file || ::write(file->fd().get(), "half", 4) != 4) ::_exit(1);
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path("")));
}

TEST(NewFileRelativeTest, ANameWithoutAFolderIsInTheWorkingDirectory) {
  test::TemporaryFolder folder;
  const auto former = std::filesystem::current_path();
  std::filesystem::current_path(folder.path(""));
  auto file = NewFile::create("a.img");
  EXPECT_TRUE(file && file->place({}));
  std::filesystem::current_path(former);
  EXPECT_TRUE(std::filesystem::exists(folder.path("a.img")));
}

}  // namespace
}  // namespace crosvm
