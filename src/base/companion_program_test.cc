#include "base/companion_program.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "base/fd.h"

namespace crosvm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class CompanionProgramTest : public testing::Test {
 protected:
  CompanionProgramTest() {
    std::string name = testing::TempDir() + "companion.XXXXXX";
    root_ = ::mkdtemp(name.data());
    std::filesystem::create_directories(bin());
    std::filesystem::create_directories(root_ + "/libexec/crosvm");
  }
  ~CompanionProgramTest() override { std::filesystem::remove_all(root_); }

  std::string bin() const { return root_ + "/bin"; }
  static void program(const std::string& path, mode_t mode = 0755) {
    std::ofstream(path) << "#!/bin/true\n";
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
  }

  std::string root_;
};

TEST_F(CompanionProgramTest, StandsBesideUsOrInLibexec) {
  program(root_ + "/libexec/crosvm/tool");
  EXPECT_EQ(find_companion_program("tool", bin()).value(), bin() + "/../libexec/crosvm/tool");
  program(bin() + "/tool");
  EXPECT_EQ(find_companion_program("tool", bin()).value(), bin() + "/tool");
}

TEST_F(CompanionProgramTest, WhatCannotBeExecutedIsNone) {
  std::filesystem::create_directory(bin() + "/tool");
  program(root_ + "/libexec/crosvm/tool", 0644);
  const auto found = find_companion_program("tool", bin());
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), std::errc::no_such_file_or_directory);
  EXPECT_THAT(found.error().what(),
              AllOf(HasSubstr(bin() + "/tool"), HasSubstr(bin() + "/../libexec/crosvm/tool")));
}

TEST_F(CompanionProgramTest, LooksBesideTheProgramThatRuns) {
  const std::string own = std::filesystem::read_symlink("/proc/self/exe").filename();
  EXPECT_EQ(find_companion_program(own).value(), std::filesystem::read_symlink("/proc/self/exe"));
}

}  // namespace
}  // namespace crosvm
