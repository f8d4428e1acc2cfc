#include "cli/text_fields.h"

#include <gmock/gmock.h>

#include <cstdint>

namespace crosvm::doctor {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(TextFields, EmptyPartsAreLeftOut) {
  EXPECT_THAT(words_of("  Uid:\t0 1000\t "), ElementsAre("Uid:", "0", "1000"));
  EXPECT_THAT(words_of(" \t"), IsEmpty());
  EXPECT_THAT(lines_of("a b\n\nc"), ElementsAre("a b", "c"));
  EXPECT_THAT(lines_of(""), IsEmpty());
}

TEST(TextFields, NumbersEndWhereTheirDigitsDo) {
  EXPECT_EQ(number<uint64_t>("123]"), 123u);
  EXPECT_EQ(number<uint64_t>("1ff", 16), 0x1ffu);
  EXPECT_EQ(number<int>("none", 10, -1), -1);
}

}  // namespace
}  // namespace crosvm::doctor
