#include "devices/net/user_net_config.h"

#include <gtest/gtest.h>

namespace crosvm {
namespace {

Result<UserNetConfig> parse(std::string_view text) {
  return UserNetConfig::parse(TRY(KeyValues::parse(text)));
}

TEST(UserNetConfigTest, Defaults) {
  const UserNetConfig config = *parse("");
  EXPECT_EQ(config.mtu, 1500);
  EXPECT_EQ(config.gateway4().to_text(), "10.0.2.2");
  EXPECT_EQ(config.resolver4().to_text(), "10.0.2.3");
  EXPECT_EQ(config.first_guest4().to_text(), "10.0.2.15");
  EXPECT_EQ(config.gateway6().to_text(), "fd00:2::2");
  EXPECT_EQ(config.resolver6().to_text(), "fd00:2::3");
  EXPECT_TRUE(config.allow.empty() && config.deny.empty() && config.forward.empty());
}

TEST(UserNetConfigTest, TheTextParsesToTheSame) {
  const char* text =
      "mac=02:00:00:00:00:05,mtu=9000,packed-queue,mrg-rxbuf=false,ipv4-network=172.20.0.0/16,"
      "ipv6-network=\"fd01::/64\",allow=[127.0.0.1:8080,\"[fd05::/16]:1-9\"],deny=[10.0.0.0/8],"
      "forward=[tcp:8080-:80,udp:0.0.0.0:53-172.20.5.5:53,\"tcp:[::1]:5-:6\"]";
  const UserNetConfig config = *parse(text);
  const auto again = parse(config.to_text());
  ASSERT_TRUE(again.has_value()) << again.error().what() << config.to_text();
  EXPECT_EQ(again->to_text(), config.to_text());
  EXPECT_EQ(again->mac, "02:00:00:00:00:05");
  EXPECT_EQ(again->mtu, 9000);
  EXPECT_TRUE(again->packed_queue);
  EXPECT_FALSE(again->mrg_rxbuf);
  EXPECT_EQ(again->allow, config.allow);
  EXPECT_EQ(again->deny, config.deny);
  EXPECT_EQ(again->forward, config.forward);
  EXPECT_EQ(again->gateway4().to_text(), "172.20.0.2");
}

TEST(UserNetConfigTest, AForwardIsBoundToTheLoopbackUnlessToldOtherwise) {
  EXPECT_EQ(PortForward::parse("tcp:8080-80")->to_text(), "tcp:127.0.0.1:8080-:80");
  EXPECT_EQ(PortForward::parse("udp::8080-:80")->to_text(), "udp:127.0.0.1:8080-:80");
  EXPECT_EQ(PortForward::parse("tcp:8080-[fd00:2::9]:80")->to_text(),
            "tcp:[::1]:8080-[fd00:2::9]:80");
  EXPECT_EQ(PortForward::parse("tcp:0.0.0.0:8080-:80")->to_text(), "tcp:0.0.0.0:8080-:80");
}

TEST(UserNetConfigTest, MistakesAreNamed) {
  const struct {
    const char* text;
    const char* part;
  } cases[] = {
      {"mtu=1000", "mtu=1000: give 1280 to 65520"},
      {"mtu=65521", "give 1280 to 65520"},
      {"ipv4-network=10.0.2.0/28", "8 to 27 bits"},
      {"ipv4-network=10.0.2.1/24", "an address within 10.0.2.0/24"},
      {"ipv4-network=\"fd00::/64\"", "8 to 27 bits"},
      {"ipv4-network=127.0.0.0/8", "a meaning of their own"},
      {"ipv4-network=169.254.0.0/16", "a meaning of their own"},
      {"ipv4-network=224.0.0.0/8", "no machine has such an address"},
      {"ipv6-network=\"fd00::/65\"", "give 64 bits"},
      {"ipv6-network=\"2001:db8::/64\"", "which are private"},
      {"allow=[nonsense]", "allow: `nonsense`"},
      {"deny=[10.0.0.0/8:0]", "deny: `0`"},
      {"forward=[sctp:1-2]", "not like tcp:8080-:80"},
      {"forward=[tcp:8080]", "not like tcp:8080-:80"},
      {"forward=[tcp:0-80]", "forward: `0`"},
      {"forward=[tcp:host:1-80]", "forward: `host:1`"},
      {"forward=[tcp:8080-192.168.1.1:80]", "not in the guest's network"},
      {"forward=[\"tcp:127.0.0.1:8080-[fd00:2::9]:80\"]", "one kind of address to the other"},
      {"forward=[tcp:8080-10.0.2.2:80]", "10.0.2.2 is the gateway's"},
      {"forward=[udp:8080-10.0.2.3:53]", "10.0.2.3 is the resolver's"},
      {"forward=[tcp:8080-10.0.2.0:80]", "10.0.2.0 is that of the network"},
      {"forward=[tcp:8080-10.0.2.255:80]", "or none: tcp:127.0.0.1:8080-:80"},
      {"ipv4-network=10.0.0.0/8,forward=[tcp:8080-10.255.255.255:80]", "that of all machines"},
      {"forward=[\"tcp:8080-[fd00:2::2]:80\"]", "fd00:2::2 is the gateway's"},
      {"forward=[\"tcp:8080-[fd00:2::3]:80\"]", "fd00:2::3 is the resolver's"},
      {"forward=[\"tcp:8080-[fd00:2::]:80\"]", "fd00:2:: is that of the network"},
      {"forward=[tcp:80-80,tcp:80-81]", "forwarded twice"},
      {"forward=[tcp:224.0.0.1:80-:80]", "a group of machines"},
      {"forward=[udp:255.255.255.255:80-:80]", "a group of machines"},
      {"forward=[\"tcp:[ff02::1]:80-:80\"]", "a group of machines"},
      {"packed-queue,mrg-rxbuf", "cannot both be given"},
      {"tap-name=x", "unknown field `tap-name`"},
      {"x", "unknown field"},
  };
  for (const auto& each : cases) {
    auto config = parse(each.text);
    ASSERT_FALSE(config.has_value()) << each.text;
    EXPECT_NE(config.error().what().find(each.part), std::string::npos)
        << each.text << ": " << config.error().what();
  }
}

}  // namespace
}  // namespace crosvm
