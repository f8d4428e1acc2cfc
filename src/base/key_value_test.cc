#include "base/key_value.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/format.h"

namespace crosvm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

enum class Colour { kRed, kDarkBlue };
constexpr std::array<KvName<Colour>, 2> kv_names(Colour) {
  return {{{"red", Colour::kRed}, {"dark-blue", Colour::kDarkBlue}}};
}

struct Extra {
  bool present = false;
  std::string device = "/dev/vhost-net";
};
Result<void> read_kv(const KvValue& value, Extra& extra) {
  TRY(value.read_struct({kv_key("device", extra.device)}));
  extra.present = true;
  return {};
}

struct Mode {
  std::string name;
  uint32_t width = 0;
  uint32_t height = 0;
};
Result<void> read_kv(const KvValue& value, Mode& mode) {
  static constexpr std::array<std::string_view, 2> kNames = {"windowed", "borderless"};
  size_t index = TRY(value.variant(kNames));
  mode.name = kNames[index];
  if (index == 0) return value.read_variant_values(mode.width, mode.height);
  return value.expect_plain();
}

struct Display {
  Mode mode;
  bool hidden = false;
};
Result<void> read_kv(const KvValue& value, Display& display) {
  return value.read_struct({kv_key("mode", display.mode), kv_key("hidden", display.hidden)});
}

struct Device {
  std::string path;
  bool ro = false;
  bool sparse = true;
  uint16_t num = 0;
  int8_t offset = 0;
  std::optional<std::string> id;
  std::vector<uint32_t> sizes;
  std::array<uint32_t, 2> dpi = {};
  Colour colour = Colour::kRed;
  Extra vhost_net;
  std::vector<std::string> names;
  std::vector<Display> displays;
};

Result<Device> parse(std::string_view text) {
  Device d;
  TRY(read_key_values(text, {kv_key("path", d.path), kv_key("ro", d.ro), kv_key("sparse", d.sparse),
                             kv_key("num", d.num).or_alias("num_of"), kv_key("offset", d.offset),
                             kv_key("id", d.id), kv_key("sizes", d.sizes), kv_key("dpi", d.dpi),
                             kv_key("colour", d.colour), kv_key("vhost-net", d.vhost_net),
                             kv_key("names", d.names), kv_key("displays", d.displays)}));
  return d;
}

std::string error_of(std::string_view text) {
  Result<Device> result = parse(text);
  return result ? "no error" : result.error().what();
}

Device valid(std::string_view text) {
  Result<Device> result = parse(text);
  EXPECT_TRUE(result) << text << ": " << result.error().what();
  return result.value_or(Device());
}

// Lexical elements, 1.2.1.

TEST(KeyValueTest, ReadsKeysInAnyOrder) {
  Device d = valid("num=3,path=disk.img,ro");
  EXPECT_EQ(d.path, "disk.img");
  EXPECT_EQ(d.num, 3);
  EXPECT_TRUE(d.ro);
}

TEST(KeyValueTest, BooleansAreTrueAndFalseOnly) {
  EXPECT_TRUE(valid("ro=true").ro);
  EXPECT_FALSE(valid("sparse=false").sparse);
  for (const char* text : {"ro=yes", "ro=1", "ro=on", "ro=True", "ro=", "ro=\"true\"", "ro=[]"}) {
    EXPECT_THAT(error_of(text), HasSubstr("boolean at position 3")) << text;
  }
}

TEST(KeyValueTest, NumbersHaveFourRadixes) {
  EXPECT_EQ(valid("num=0x1fF").num, 0x1ff);
  EXPECT_EQ(valid("num=0o17").num, 15);
  EXPECT_EQ(valid("num=0b101").num, 5);
  EXPECT_EQ(valid("num=007").num, 7);
  EXPECT_EQ(valid("offset=-128").offset, -128);
  EXPECT_EQ(valid("offset=-0x10").offset, -16);
}

TEST(KeyValueTest, NumbersAreCheckedWhole) {
  for (const char* text : {"num=2k", "num=1G", "num=+1", "num=0X10", "num=1_000", "num=", "num=0x",
                           "num=0b2", "num=-", "num=\"1\"", "num=1 ", "num= 1", "num=--1"}) {
    EXPECT_THAT(error_of(text), HasSubstr("invalid number at position 4")) << text;
  }
}

TEST(KeyValueTest, NumbersMustFitTheirType) {
  EXPECT_EQ(valid("num=65535").num, 65535);
  for (const char* text :
       {"num=65536", "num=-1", "offset=128", "offset=-129", "num=99999999999999999999999"}) {
    EXPECT_THAT(error_of(text), HasSubstr("invalid number")) << text;
  }
}

TEST(KeyValueTest, UnquotedStringsHoldSpacesAndEquals) {
  EXPECT_EQ(valid("path=foo=bar==.log").path, "foo=bar==.log");
  EXPECT_EQ(valid("path=a b:c\\d").path, "a b:c\\d");
  EXPECT_EQ(valid("path=10").path, "10");
  EXPECT_EQ(valid("path=true").path, "true");
  EXPECT_THAT(error_of("path="), HasSubstr("string at position 5"));
  EXPECT_THAT(error_of("path=,ro"), HasSubstr("string at position 5"));
}

TEST(KeyValueTest, DoubleQuotesEscapeQuoteAndBackslash) {
  EXPECT_EQ(valid(R"(path="a,[b]'=\"\\")").path, R"(a,[b]'="\)");
  EXPECT_EQ(valid("path=\"\"").path, "");
  EXPECT_THAT(error_of(R"(path="a\n")"), HasSubstr("invalid char in string at position 7"));
  EXPECT_THAT(error_of("path=\"a"), HasSubstr("end of input at position 7"));
  EXPECT_THAT(error_of(R"(path="a\)"), HasSubstr("end of input"));
}

TEST(KeyValueTest, SingleQuotesAreRaw) {
  EXPECT_EQ(valid(R"(path='a\"b,')").path, R"(a\"b,)");
  EXPECT_EQ(valid("path=''").path, "");
  EXPECT_THAT(error_of("path='a"), HasSubstr("end of input at position 7"));
}

TEST(KeyValueTest, QuotesAndBracketsOnlyInsideQuotedStrings) {
  for (const char* text : {"path=a\"b\"", "path=\"a\"b", "path=a'b'", "path=a[b]", "path='a''b'"}) {
    EXPECT_THAT(error_of(text), HasSubstr("can only stand inside a quoted string")) << text;
  }
}

TEST(KeyValueTest, NoWhitespaceIsSkipped) {
  EXPECT_THAT(error_of("ro, num=1"), HasSubstr("identifier at position 3"));
  EXPECT_THAT(error_of("num =1"), HasSubstr("expected `=` at position 3"));
}

TEST(KeyValueTest, NulBytesAreRefused) {
  EXPECT_THAT(error_of(std::string_view("path=a\0b", 8)), HasSubstr("position 6"));
}

// Structure, 1.2.2.

TEST(KeyValueTest, ListsAreBracketed) {
  EXPECT_THAT(valid("sizes=[1,0x2,3]").sizes, ElementsAre(1u, 2u, 3u));
  EXPECT_THAT(valid("sizes=[]").sizes, IsEmpty());
  EXPECT_THAT(valid("sizes=[7,]").sizes, ElementsAre(7u));
  EXPECT_THAT(valid("names=[a=b,'c,d',\"e\"]").names, ElementsAre("a=b", "c,d", "e"));
  EXPECT_THAT(error_of("sizes=1"), HasSubstr("`[` at position 6"));
  EXPECT_THAT(error_of("sizes=x[1]"), HasSubstr("`[` at position 6"));
  EXPECT_THAT(error_of("sizes=[1"), HasSubstr("end of input at position 8"));
  EXPECT_THAT(error_of("sizes=[1]2"), HasSubstr("`,` at position 9"));
}

TEST(KeyValueTest, CommasSeparateAndMayTrailOnce) {
  EXPECT_EQ(valid("path=a,").path, "a");
  EXPECT_TRUE(parse(""));
  for (const char* text : {",", ",path=a", "path=a,,ro", "path=a,,", "sizes=[1,,2]", "sizes=[,]"}) {
    EXPECT_THAT(error_of(text), HasSubstr("identifier at position")) << text;
  }
}

TEST(KeyValueTest, TuplesHaveTheirExactLength) {
  EXPECT_THAT(valid("dpi=[320,240]").dpi, ElementsAre(320u, 240u));
  EXPECT_THAT(error_of("dpi=[320]"), HasSubstr("invalid length 1, expected 2"));
  EXPECT_THAT(error_of("dpi=[1,2,3]"), HasSubstr("invalid length 3, expected 2"));
}

TEST(KeyValueTest, LeftoverInputIsRefused) {
  EXPECT_THAT(error_of("ro]"), HasSubstr("remaining characters at position 2"));
  EXPECT_THAT(error_of("]"), HasSubstr("remaining characters at position 0"));
}

TEST(KeyValueTest, DepthIsBounded) {
  std::string deep(10'000, '[');
  EXPECT_THAT(error_of("sizes=" + deep), HasSubstr("`[` at position 22"));
}

TEST(KeyValueTest, EnumsArePlainIdentifiers) {
  EXPECT_EQ(valid("colour=dark-blue").colour, Colour::kDarkBlue);
  EXPECT_EQ(error_of("colour=Red"),
            "colour: unknown variant `Red`, expected one of `red`, `dark-blue`");
  EXPECT_THAT(error_of("colour=\"red\""), HasSubstr("identifier at position 7"));
  EXPECT_THAT(error_of("colour=red[]"), HasSubstr("remaining characters at position 10"));
  EXPECT_THAT(error_of("colour"), HasSubstr("`=` at position 0"));
}

TEST(KeyValueTest, NestedStructsAndTupleVariants) {
  Device d = valid("displays=[[windowed[800,600],hidden],[mode=borderless],[]]");
  ASSERT_EQ(d.displays.size(), 3u);
  EXPECT_EQ(d.displays[0].mode.width, 800u);
  EXPECT_EQ(d.displays[0].mode.height, 600u);
  EXPECT_TRUE(d.displays[0].hidden);
  EXPECT_EQ(d.displays[1].mode.name, "borderless");
  EXPECT_THAT(error_of("displays=[[windowed[800]]]"), HasSubstr("invalid length 1, expected 2"));
  EXPECT_THAT(error_of("displays=[[windowed]]"), HasSubstr("`[` at position 19"));
  EXPECT_THAT(error_of("displays=[[borderless[]]]"), HasSubstr("remaining characters"));
}

// Flag form and defaults, 1.2.3.

TEST(KeyValueTest, KeyAloneIsTrueOrAStructOfDefaults) {
  EXPECT_TRUE(valid("ro").ro);
  EXPECT_TRUE(valid("vhost-net").vhost_net.present);
  EXPECT_TRUE(valid("vhost-net=").vhost_net.present);
  EXPECT_EQ(valid("vhost-net=[device=/dev/x]").vhost_net.device, "/dev/x");
  EXPECT_FALSE(valid("ro").vhost_net.present);
  for (const char* text : {"ro,path", "ro,num", "ro,id", "ro,sizes", "ro,dpi", "ro,colour"}) {
    EXPECT_THAT(error_of(text), HasSubstr("expected `=` at position 3")) << text;
  }
}

TEST(KeyValueTest, RepeatedKeysAreRefusedAliasesCounted) {
  EXPECT_EQ(error_of("ro,ro"), "duplicate field `ro`");
  EXPECT_EQ(error_of("num=1,num_of=1"), "duplicate field `num`");
  EXPECT_EQ(error_of("a.img,path=b"), "duplicate field `path`");
}

TEST(KeyValueTest, UnknownKeysAreRefusedNamingTheKnown) {
  EXPECT_THAT(error_of("ro,spare=1"), HasSubstr("unknown field `spare`, expected one of `path`"));
  EXPECT_THAT(error_of("ro,spare"), HasSubstr("`num`, `num_of`"));
  bool known = false;
  EXPECT_TRUE(read_key_values("other=[1,2],known,x", {kv_key("known", known)},
                              {.positional = false, .ignore_unknown = true}));
  EXPECT_TRUE(known);
}

TEST(KeyValueTest, RequiredKeysAreReportedMissing) {
  std::string path;
  std::string socket;
  auto result =
      read_key_values("p", {kv_key("path", path).require(), kv_key("socket", socket).require()});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().what(), "missing field `socket`");
}

// The first key left out, 1.2.4.

TEST(KeyValueTest, FirstValueBelongsToTheFirstKey) {
  EXPECT_EQ(valid("/dev/sda,ro").path, "/dev/sda");
  EXPECT_EQ(valid("\"a,b\",ro").path, "a,b");
  EXPECT_EQ(valid("foo,ro").path, "foo");
  EXPECT_EQ(valid("./a=b").path, "./a=b");
  EXPECT_EQ(valid("rom").path, "rom");
  EXPECT_EQ(valid("12").path, "12");
}

TEST(KeyValueTest, FirstIdentifierIsAKeyWhenItIsOne) {
  Device d = valid("ro,path=x");
  EXPECT_TRUE(d.ro);
  EXPECT_EQ(d.path, "x");
  EXPECT_THAT(error_of("a=b"), HasSubstr("unknown field `a`"));
  EXPECT_THAT(
      error_of("ro.img"),
      HasSubstr(
          "`ro` is a key (write path=ro.img if it begins a value): expected `=` at position 2"));
  EXPECT_THAT(error_of("x,ro.img"), HasSubstr("`ro` is a key: expected `=` at position 4"));
}

TEST(KeyValueTest, OnlyTheFirstItemMayOmitItsKey) {
  EXPECT_THAT(error_of("ro,disk.img"), HasSubstr("unknown field `disk`"));
  EXPECT_THAT(error_of("ro,/disk"), HasSubstr("identifier at position 3"));
  std::string path;
  auto result = read_key_values("a.img", {kv_key("path", path)}, {.positional = false});
  EXPECT_THAT(result.error().what(), HasSubstr("unknown field `a`"));
}

// Top-level enums.

Result<std::string> hypervisor(std::string_view text) {
  static constexpr std::array<std::string_view, 2> kNames = {"kvm", "other"};
  std::string device = "/dev/kvm";
  KeyValues values = TRY(KeyValues::parse(text));
  KvValue value = TRY(values.as_enum());
  size_t index = TRY(value.variant(kNames));
  if (index == 0) TRY(value.read_variant_fields({kv_key("device", device)}));
  if (index == 1) TRY(value.expect_plain());
  return device;
}

TEST(KeyValueTest, EnumsMayBeTheWholeText) {
  EXPECT_EQ(hypervisor("kvm").value(), "/dev/kvm");
  EXPECT_EQ(hypervisor("kvm[]").value(), "/dev/kvm");
  EXPECT_EQ(hypervisor("kvm[device=/dev/k,]").value(), "/dev/k");
  EXPECT_TRUE(hypervisor("other"));
  EXPECT_THAT(hypervisor("xen").error().what(), HasSubstr("unknown variant `xen`"));
  EXPECT_THAT(hypervisor("").error().what(), HasSubstr("identifier at position 0"));
  EXPECT_THAT(hypervisor("kvm,x").error().what(), HasSubstr("remaining characters at position 3"));
  EXPECT_THAT(hypervisor("kvm,").error().what(), HasSubstr("remaining characters at position 3"));
  EXPECT_THAT(hypervisor("other[]").error().what(), HasSubstr("remaining characters"));
  EXPECT_THAT(hypervisor("\"kvm\"").error().what(), HasSubstr("identifier"));
}

TEST(KeyValueTest, VariantFieldsHaveNoPositionalForm) {
  EXPECT_FALSE(hypervisor("kvm[/dev/kvm]"));
  EXPECT_FALSE(hypervisor("kvm[abc]"));
}

// An empty bracketed struct does not disturb what follows, 1.2.7.

TEST(KeyValueTest, EmptyBracketsMayStandAnywhere) {
  Device d = valid("vhost-net=[],num=4");
  EXPECT_TRUE(d.vhost_net.present);
  EXPECT_EQ(d.num, 4);
  EXPECT_EQ(valid("displays=[[],[]],ro").displays.size(), 2u);
  EXPECT_TRUE(valid("displays=[[],[]],ro").ro);
}

}  // namespace
}  // namespace crosvm
