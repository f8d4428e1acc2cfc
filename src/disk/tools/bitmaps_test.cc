// Images with dirty bitmaps of another program, made by it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "disk/disk_driver.h"
#include "disk/qcow2/big_endian.h"
#include "disk/tools/check_image.h"
#include "disk/tools/compact_image.h"

namespace crosvm {
namespace {

using test::run_program;
using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

constexpr size_t kAutoclear = 88;  // in the header
constexpr size_t kCluster = 65536;

class BitmapsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (run_program("command -v qemu-img qemu-io").status != 0) GTEST_SKIP() << "no qemu-img";
    const test::Ran made = run_program(
        "cd " + folder_.path("") +
        " && qemu-img create -q -f qcow2 a.qcow2 8M && qemu-img bitmap --add a.qcow2 one"
        " && qemu-img bitmap --add -g 4096 a.qcow2 two"
        " && qemu-io -c 'write 0 1M' -c 'write 5M 64k' a.qcow2");
    ASSERT_EQ(made.status, 0) << made.output;
    image_ = folder_.read("a.qcow2");
  }

  CheckOutcome check(bool repair = false) const {
    const auto outcome = check_image({.path = folder_.path("a.qcow2"), .repair = repair});
    EXPECT_TRUE(outcome) << outcome.error().what();
    return outcome.value_or(CheckOutcome{.errors = 99, .messages = {}});
  }
  std::string qemu(const std::string& arguments) const {
    return run_program("qemu-img " + arguments + " " + folder_.path("a.qcow2")).output;
  }
  uint64_t number(size_t at) const {
    return load_big_endian<uint64_t>(std::as_bytes(std::span(image_)), at);
  }
  void set_number(size_t at, uint64_t value) {
    store_big_endian(std::as_writable_bytes(std::span(image_)), at, value);
  }
  /// Of the extension's contents: how many, bytes and offset of the directory.
  size_t extension() const {
    const size_t at = image_.find("\x23\x85\x28\x75");
    EXPECT_LT(at, kCluster);
    return at + 8;
  }
  /// The image with a data cluster that nothing uses any more.
  void leak_one() {
    const uint64_t l1 = number(40);
    set_number(number(l1) & 0x00ff'ffff'ffff'fe00, 0);
    folder_.write("a.qcow2", image_);
  }

  TemporaryFolder folder_;
  std::string image_;
};

TEST_F(BitmapsTest, TheirClustersAreInUse) {
  const CheckOutcome found = check();
  EXPECT_EQ(found.errors, 0u) << found.messages.front();
  EXPECT_EQ(found.leaks, 0u) << found.messages.front();
  EXPECT_EQ(check(true).repaired_leaks, 0u);
  EXPECT_TRUE(folder_.read("a.qcow2") == image_);
}

TEST_F(BitmapsTest, RepairOfOtherLeaksKeepsThem) {
  leak_one();
  EXPECT_EQ(check().leaks, 1u);
  const CheckOutcome repaired = check(true);
  EXPECT_EQ(repaired.repaired_leaks, 1u);
  EXPECT_EQ(repaired.errors + repaired.leaks, 0u);
  EXPECT_THAT(qemu("check"), HasSubstr("No errors were found"));
  EXPECT_THAT(qemu("info"), AllOf(HasSubstr("name: one"), HasSubstr("name: two")));
  const test::Ran merged = run_program("cd " + folder_.path("") +
                                       " && qemu-img bitmap --add --disable a.qcow2 all"
                                       " && qemu-img bitmap --merge one --merge two a.qcow2 all");
  EXPECT_EQ(merged.status, 0) << "their contents can be read: " << merged.output;
}

TEST_F(BitmapsTest, ThoseOutOfDateAreLeaks) {
  image_[kAutoclear + 7] &= ~1;  // as who writes to the image and does not know them leaves it
  folder_.write("a.qcow2", image_);
  const CheckOutcome found = check();
  EXPECT_EQ(found.errors, 0u);
  EXPECT_GE(found.leaks, 3u) << "the directory and two tables at least";
  EXPECT_EQ(check(true).repaired_leaks, found.leaks);
  EXPECT_EQ(check().leaks, 0u);
  EXPECT_THAT(qemu("check"), HasSubstr("No errors were found"));
}

TEST_F(BitmapsTest, CompactRefusesToDropThem) {
  const auto refused = compact_image({.path = folder_.path("a.qcow2")});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), std::errc::not_supported);
  EXPECT_THAT(refused.error().what(),
              AllOf(HasSubstr("a.qcow2"), HasSubstr("2 dirty bitmaps"), HasSubstr("'one'"),
                    HasSubstr("qemu-img bitmap --remove")));
  EXPECT_TRUE(folder_.read("a.qcow2") == image_);
  for (const char* name : {"one", "two"}) {
    EXPECT_EQ(
        run_program("qemu-img bitmap --remove " + folder_.path("a.qcow2") + " " + name).status, 0);
  }
  const auto done = compact_image({.path = folder_.path("a.qcow2")});
  EXPECT_TRUE(done) << done.error().what();
}

TEST_F(BitmapsTest, ABrokenDirectoryIsDamageAndNothingIsRepaired) {
  const std::string whole = image_;
  const uint64_t directory = number(extension() + 16);
  auto expect_damage = [&](const char* words) {
    leak_one();
    const CheckOutcome found = check(true);
    EXPECT_GE(found.errors, 1u) << words;
    std::string all;
    for (const std::string& message : found.messages) all += message + "\n";
    EXPECT_THAT(all, HasSubstr(words));
    EXPECT_EQ(found.repaired_leaks, 0u);
    EXPECT_TRUE(folder_.read("a.qcow2") == image_) << words;
    image_ = whole;
  };
  set_number(extension() + 16, uint64_t{1} << 60);
  expect_damage("does not fit");
  set_number(extension() + 8, uint64_t{1} << 60);
  expect_damage("does not fit");
  set_number(extension(), uint64_t{7} << 32);
  expect_damage("has 2 entries instead of 7");
  set_number(extension() + 8, number(extension() + 8) - 8);
  expect_damage("ends within an entry");
  set_number(directory, number(40));  // the L1 table for a bitmap's table
  expect_damage("overlaps other metadata");
  set_number(directory, whole.size() * 2);
  expect_damage("outside the file");
  set_number(directory + 8, uint64_t{0xffff'ffff} << 32);
  expect_damage("is larger than any can be");
}

}  // namespace
}  // namespace crosvm
