#include "devices/net/net_config.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace crosvm {
namespace {

Result<NetConfig> parse(std::string_view text) {
  return NetConfig::parse(TRY(KeyValues::parse(text)));
}

TEST(NetConfigTest, TextsOfAllConfigurationsParseToThem) {
  const NetConfig plain{.network = "tap0", .mac = {2, 1, 2, 3, 4, 5}};
  const NetConfig full{.network = "a \"b\\,c",
                       .mac = {0xfe, 0xff, 0, 1, 2, 3},
                       .vq_pairs = 256,
                       .mtu = 65535,
                       .mrg_rxbuf = false,
                       .packed_queue = true};
  for (const NetConfig& config : {plain, full}) {
    auto parsed = parse(config.to_text());
    ASSERT_TRUE(parsed.has_value()) << config.to_text() << ": " << parsed.error().what();
    EXPECT_EQ(*parsed, config);
  }
}

TEST(NetConfigTest, RefusesWhatACardCannotBe) {
  for (const char* text : {"network=a", "mac=02:00:00:00:00:01", "network=a,mac=02:00:00:00:00",
                           "network=a,mac=02:00:00:00:00:01,vq-pairs=0",
                           "network=a,mac=02:00:00:00:00:01,vq-pairs=257",
                           "network=a,mac=02:00:00:00:00:01,mtu=65536"}) {
    EXPECT_FALSE(parse(text).has_value()) << text;
  }
}

TEST(NetConfigTest, MacAddresses) {
  EXPECT_EQ(mac_text(*parse_mac("aA:00:ff:12:9b:C0")), "aa:00:ff:12:9b:c0");
  for (const char* text : {"", "aa:00:ff:12:9b", "aa:00:ff:12:9b:c0:", "aa-00-ff-12-9b-c0",
                           "aa:00:ff:12:9b:g0", "aa:00:ff:12:9b:c00", "a:00:ff:12:9b:c01"}) {
    EXPECT_FALSE(parse_mac(text).has_value()) << text;
  }
}

TEST(NetConfigTest, ChosenAddressesAreStableAndApart) {
  EXPECT_EQ(stable_mac("vm"), stable_mac("vm"));
  std::set<MacAddress> seen;
  for (int i = 0; i < 1000; ++i) {
    const MacAddress mac = stable_mac("vm\nnet" + std::to_string(i));
    EXPECT_EQ(mac[0] & 3, 2);
    seen.insert(mac);
  }
  EXPECT_EQ(seen.size(), 1000u);
}

}  // namespace
}  // namespace crosvm
