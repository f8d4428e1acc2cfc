#include "base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm {
namespace {

using testing::HasSubstr;

std::string error_of(std::string_view text) {
  auto value = Json::parse(text);
  return value ? "no error, but " + value->dump() : value.error().what();
}

TEST(Json, ParsesEveryKindAndWritesItBack) {
  std::string text =
      R"({"z":null,"a":[true,false,-9223372036854775808,18446744073709551615,0],"d":1.5,"s":"é"})";
  auto value = Json::parse(text);
  ASSERT_TRUE(value) << value.error().what();
  EXPECT_EQ(value->dump(), text);  // members stay in order
}

TEST(Json, WritesPretty) {
  Json value;
  value.set("a", Json::array({1, "x"}));
  value.set("empty", Json::object());
  EXPECT_EQ(value.dump_pretty(), "{\n  \"a\": [\n    1,\n    \"x\"\n  ],\n  \"empty\": {}\n}");
}

TEST(Json, EscapesWhatMustBe) {
  EXPECT_EQ(Json("q\" b\\ \n\r\t\b\f \x01 /").dump(), R"("q\" b\\ \n\r\t\b\f \u0001 /")");
  EXPECT_EQ(Json(std::string(1, '\0')).dump(), R"("\u0000")");
}

TEST(Json, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(Json("a\xff"
                 "b")
                .dump(),
            "\"a\xef\xbf\xbd"
            "b\"");
  EXPECT_EQ(Json("\xc0\xaf").dump(), "\"\xef\xbf\xbd\xef\xbf\xbd\"");  // overlong
  EXPECT_EQ(Json("\xf0\x9f\x98\x80").dump(), "\"\xf0\x9f\x98\x80\"");
  EXPECT_EQ(Json("\xe2\x82").dump(), "\"\xef\xbf\xbd\xef\xbf\xbd\"");  // cut short
}

TEST(Json, DoublesStayDoubles) {
  EXPECT_EQ(Json(2.0).dump(), "2.0");
  EXPECT_EQ(Json(1e300).dump(), "1e+300");
  EXPECT_EQ(Json(0.1).dump(), "0.1");
  EXPECT_EQ(Json(1.0 / 0.0).dump(), "null");
  EXPECT_EQ(*Json::parse("18446744073709551616")->as_double(), 18446744073709551616.0);
}

TEST(Json, SyntaxErrorsNameThePlace) {
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "nul", "\"\x01\"", "\"\xff\"", "1 2",
                           "{a:1}", "'x'", "[1", "01", "+1", "NaN", "// x\n1", "1e999"}) {
    EXPECT_THAT(error_of(text), HasSubstr("not valid JSON: ")) << text;
  }
  EXPECT_THAT(error_of("[1,,2]"), HasSubstr("byte 4"));
}

TEST(Json, MemberNamedTwiceIsAnError) {
  EXPECT_THAT(error_of(R"({"a":1,"b":2,"a":3})"), HasSubstr("member \"a\" is named twice"));
}

TEST(Json, DepthAndSizeAreBounded) {
  auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(Json::parse(nested(64)));
  EXPECT_THAT(error_of(nested(65)), HasSubstr("deeper than 64"));
  EXPECT_THAT(error_of(std::string(1 << 19, '[')), HasSubstr("deeper than 64"));
  EXPECT_THAT(error_of(std::string((1 << 20) + 1, ' ')), HasSubstr("longer than"));
  EXPECT_FALSE(Json::parse("[1]", {.max_bytes = 2}));
}

TEST(Json, IntegersAreRangeChecked) {
  EXPECT_EQ(Json(255).as_uint(255).value(), 255u);
  EXPECT_EQ(Json(256).as_uint(255).error().what(), "expected an integer from 0 to 255, found 256");
  EXPECT_EQ(Json(-1).as_uint().error().what(),
            "expected an integer from 0 to 18446744073709551615, found -1");
  EXPECT_FALSE(Json(1.0).as_uint());
  EXPECT_EQ(Json(-5).as_int(-5, 5).value(), -5);
  EXPECT_EQ(Json(5).as_int(-5, 5).value(), 5);
  EXPECT_FALSE(Json(UINT64_MAX).as_int());
}

TEST(Json, AccessorsSayWhatTheyFound) {
  EXPECT_EQ(Json("x").as_bool().error().what(), "expected a boolean, found a string");
  EXPECT_EQ(Json(true).as_string().error().what(), "expected a string, found a boolean");
  EXPECT_EQ(Json().items().error().what(), "expected an array, found null");
  EXPECT_EQ(Json::array().members().error().what(), "expected an object, found an array");
  auto object = Json::parse(R"({"a":1})");
  ASSERT_TRUE(object);
  EXPECT_EQ(object->at("b").error().what(), "member \"b\" is missing");
  EXPECT_EQ(object->find("b"), nullptr);
  EXPECT_EQ((*object->at("a"))->as_uint().value(), 1u);
}

}  // namespace
}  // namespace crosvm
