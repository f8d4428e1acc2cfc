#include "virtio/device_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm {
namespace {

using testing::HasSubstr;

DeviceState example() {
  DeviceState state{.device_type = 2, .features = uint64_t{1} << 63 | 1, .fields = {}};
  state.fields.set(7, uint64_t{0x1122334455667788});
  state.fields.set(1, uint16_t{9});
  state.fields.set_bytes(3, {});
  return state;
}

std::string refusal(const std::vector<std::byte>& bytes) {
  const auto state = DeviceState::decode(bytes);
  return state ? "" : state.error().what();
}

TEST(DeviceState, ComesBackAsItWas) {
  const auto bytes = example().encode();
  EXPECT_EQ(bytes.size(), 32u + 3 * 8 + 8 + 2);
  const auto state = DeviceState::decode(bytes);
  ASSERT_TRUE(state.has_value());
  EXPECT_EQ(state->device_type, 2u);
  EXPECT_EQ(state->features, uint64_t{1} << 63 | 1);
  EXPECT_EQ(state->fields.get<uint64_t>(7).value(), 0x1122334455667788u);
  EXPECT_EQ(state->fields.get<uint16_t>(1).value(), 9u);
  EXPECT_EQ(state->fields.get_bytes(3)->size(), 0u);
}

TEST(DeviceState, FieldsAreWhatIsAskedFor) {
  const DeviceFields fields = example().fields;
  EXPECT_THAT(fields.get<uint32_t>(7).error().what(),
              HasSubstr("field 7 has 8 bytes instead of 4"));
  EXPECT_THAT(fields.get<uint32_t>(8).error().what(), HasSubstr("field 8 is missing"));
  EXPECT_TRUE(fields.expect_only({1, 3, 7, 9}).has_value());
  const auto unknown = fields.expect_only({1, 7});
  ASSERT_FALSE(unknown.has_value());
  EXPECT_EQ(unknown.error().code(), std::errc::not_supported);
  EXPECT_THAT(unknown.error().what(), HasSubstr("field 3 is not known here"));
}

TEST(DeviceState, WhatIsCutShortIsRefused) {
  const auto bytes = example().encode();
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THAT(refusal({bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(length)}),
                HasSubstr("ends early"))
        << length;
  }
  auto longer = bytes;
  longer.push_back({});
  EXPECT_THAT(refusal(longer), HasSubstr("1 bytes follow"));
}

TEST(DeviceState, AnotherVersionIsNamed) {
  auto bytes = example().encode();
  bytes[8] = std::byte{2};
  const auto state = DeviceState::decode(bytes);
  ASSERT_FALSE(state.has_value());
  EXPECT_EQ(state.error().code(), std::errc::not_supported);
  EXPECT_THAT(state.error().what(), HasSubstr("has version 2, known is 1"));
}

TEST(DeviceState, WhatCannotBeIsRefused) {
  auto other = example().encode();
  other[0] = std::byte{'x'};
  EXPECT_THAT(refusal(other), HasSubstr("not the state of a device"));
  auto many = example().encode();
  many[27] = std::byte{0xff};  // of the number of fields
  EXPECT_THAT(refusal(many), HasSubstr("fields cannot be"));
  auto endless = example().encode();
  endless[32 + 7] = std::byte{0xff};  // of the first field's length
  EXPECT_THAT(refusal(endless), HasSubstr("ends early"));
  auto twice = example().encode();
  twice[32 + 10] = std::byte{1};  // the tag of the second field
  EXPECT_THAT(refusal(twice), HasSubstr("field 1 comes twice"));
}

}  // namespace
}  // namespace crosvm
