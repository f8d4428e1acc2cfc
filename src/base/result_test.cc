#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <exception>
#include <memory>
#include <new>

namespace crosvm {
namespace {

Result<int> half(int number) {
  if (number % 2 != 0) return fail(Error::invalid(std::to_string(number) + " is odd"));
  return number / 2;
}

Result<int> quarter(int number) {
  int once = TRY(half(number));
  return TRY(with_context(half(once), "the half"));
}

TEST(Result, TryYieldsTheValueOrReturnsTheError) {
  EXPECT_EQ(quarter(8).value(), 2);
  EXPECT_EQ(quarter(3).error().what(), "3 is odd");
  EXPECT_EQ(quarter(6).error().what(), "the half: 3 is odd");
  EXPECT_EQ(quarter(6).error().code(), std::errc::invalid_argument);
}

Result<std::unique_ptr<int>> made(int number) { return std::make_unique<int>(number); }
Result<int> through_move_only() { return *TRY(made(5)); }

TEST(Result, TryMovesWhatCannotBeCopied) { EXPECT_EQ(through_move_only().value(), 5); }

TEST(Result, ErrnoGivesCodeAndSentence) {
  errno = ENOENT;
  Error error = Error::from_errno("opening", "disk.img");
  EXPECT_EQ(error.code(), std::errc::no_such_file_or_directory);
  EXPECT_EQ(error.what(), "opening disk.img: No such file or directory");
  EXPECT_EQ(std::move(error).context("block0").what(),
            "block0: opening disk.img: No such file or directory");
}

TEST(Result, ContextLeavesSuccessAlone) { EXPECT_EQ(with_context(half(4), "x").value(), 2); }

TEST(ResultDeathTest, CheckStopsInEveryBuildAndSaysWhere) {
  EXPECT_DEATH(CHECK(1 + 1 == 3), "result_test.cc:[0-9]+: 1 \\+ 1 == 3 does not hold");
  CHECK(1 + 1 == 2);
}

TEST(ResultTest, AnExceptionThatNobodyCatchesIsNamed) {
  const auto throw_one = []() noexcept {
    std::rethrow_exception(std::make_exception_ptr(std::bad_alloc()));
  };
  EXPECT_DEATH(throw_one(), "nobody caught std::bad_alloc");
}

TEST(Error, WithoutDescriptorsLeftTheLimitIsNamed) {
  const std::string what = Error::from_errno("opening", "disk.img", EMFILE).what();
  EXPECT_TRUE(what.ends_with("Too many open files; raise RLIMIT_NOFILE (ulimit -Hn)"));
}

}  // namespace
}  // namespace crosvm
