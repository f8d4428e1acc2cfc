#include "devices/net/user/egress_policy.h"

#include <gtest/gtest.h>

#include <initializer_list>

namespace crosvm {
namespace {

EgressPolicy policy(std::initializer_list<std::string_view> allow,
                    std::initializer_list<std::string_view> deny) {
  std::vector<EgressRule> lists[2];
  for (std::string_view text : allow) lists[0].push_back(*EgressRule::parse(text));
  for (std::string_view text : deny) lists[1].push_back(*EgressRule::parse(text));
  return {lists[0], lists[1]};
}
bool allows(const EgressPolicy& judge, std::string_view address, uint16_t port = 80) {
  return judge.allows(*IpAddress::parse(address), port);
}

TEST(EgressPolicyTest, TheWorldIsAllowedAndWhatIsNotTheWorldIsDenied) {
  const EgressPolicy none = policy({}, {});
  for (const char* address :
       {"1.1.1.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "223.255.255.255", "169.253.255.255",
        "169.255.0.0", "126.255.255.255", "128.0.0.1", "2606:4700::1111", "fd00::1", "fe00::1",
        "64:ff9b::101:101", "2002:101:101::1"}) {
    EXPECT_TRUE(allows(none, address)) << address;
    EXPECT_TRUE(allows(none, address, 0)) << address;
  }
  for (const char* address :
       {"0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "169.254.169.254", "169.254.0.1",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.251", "239.255.255.255",
        "255.255.255.255", "240.0.0.1", "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1",
        "::ffff:8.8.8.8", "fe80::1", "febf::1", "fec0::1", "ff02::1", "fd00:ec2::254",
        "fd20:ce::254", "fd00:42::42", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe", "64:ff9b:1::101:101", "64:ff9b:1:a9fe:a9:fe00::", "2002:7f00:1::1",
        "2002:a9fe:a9fe::", "2002:e000:1::5",
        // Teredo has the client's address inverted.
        "2001:0:101:101::80ff:fffe"}) {
    EXPECT_FALSE(allows(none, address)) << address;
    EXPECT_FALSE(allows(none, address, 0)) << address;
  }
}

TEST(EgressPolicyTest, TheLongestPrefixDecides) {
  const EgressPolicy judge =
      policy({"10.1.0.0/16", "10.1.2.3", "fd00:1::/32"}, {"10.0.0.0/8", "10.1.2.0/24", "fd00::/8"});
  EXPECT_FALSE(allows(judge, "10.0.0.1"));
  EXPECT_TRUE(allows(judge, "10.1.0.1"));
  EXPECT_FALSE(allows(judge, "10.1.2.4"));
  EXPECT_TRUE(allows(judge, "10.1.2.3"));
  EXPECT_TRUE(allows(judge, "11.0.0.1"));
  EXPECT_FALSE(allows(judge, "fd00:2::1"));
  EXPECT_TRUE(allows(judge, "fd00:1::1"));
}

TEST(EgressPolicyTest, AListOfWhatIsAllowedDeniesTheRest) {
  const EgressPolicy judge =
      policy({"192.0.2.1:443", "[2001:db8::/32]:443"}, {"0.0.0.0/0", "::/0"});
  EXPECT_TRUE(allows(judge, "192.0.2.1", 443));
  EXPECT_FALSE(allows(judge, "192.0.2.1", 80));
  EXPECT_FALSE(allows(judge, "192.0.2.1", 0)) << "a ping has no port";
  EXPECT_FALSE(allows(judge, "192.0.2.2", 443));
  EXPECT_TRUE(allows(judge, "2001:db8::5", 443));
  EXPECT_FALSE(allows(judge, "2001:db8::5", 444));
  EXPECT_FALSE(allows(judge, "2001:db9::5", 443));
}

TEST(EgressPolicyTest, AmongTheSameAddressesFewerPortsDecideAndThenADenial) {
  const EgressPolicy judge = policy({"10.0.0.0/8:1000-1999", "10.0.0.0/8:25"},
                                    {"10.0.0.0/8", "10.0.0.0/8:1500", "10.0.0.0/8:25"});
  EXPECT_TRUE(allows(judge, "10.0.0.1", 1000));
  EXPECT_TRUE(allows(judge, "10.0.0.1", 1999));
  EXPECT_FALSE(allows(judge, "10.0.0.1", 1500));
  EXPECT_FALSE(allows(judge, "10.0.0.1", 2000));
  EXPECT_FALSE(allows(judge, "10.0.0.1", 25));
  const EgressPolicy mail = policy({}, {"0.0.0.0/0:25", "::/0"});
  EXPECT_FALSE(allows(mail, "1.2.3.4", 25));
  EXPECT_TRUE(allows(mail, "1.2.3.4", 26));
}

TEST(EgressPolicyTest, WhatIsDeniedFromTheBeginningIsAllowedByNameAlone) {
  EXPECT_FALSE(allows(policy({"0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1"}, {}), "127.0.0.1"));
  EXPECT_FALSE(allows(policy({"0.0.0.0/0", "128.0.0.0/1"}, {}), "169.254.169.254"));
  EXPECT_TRUE(allows(policy({"169.254.0.0/16"}, {}), "169.254.169.254"));
  EXPECT_TRUE(allows(policy({"169.254.169.254:80"}, {}), "169.254.169.254", 80));
  EXPECT_FALSE(allows(policy({"169.254.169.254:80"}, {}), "169.254.169.254", 81));
  EXPECT_TRUE(allows(policy({"127.0.0.1:8080"}, {}), "127.0.0.1", 8080));
  EXPECT_FALSE(allows(policy({"127.0.0.1:8080"}, {}), "127.0.0.2", 8080));
}

TEST(EgressPolicyTest, AnAddressThatStandsForAnotherNeedsBoth) {
  const EgressPolicy judge = policy({"64:ff9b::/96"}, {"8.8.8.0/24"});
  EXPECT_FALSE(allows(judge, "64:ff9b::808:808"));
  EXPECT_TRUE(allows(judge, "64:ff9b::101:101"));
  EXPECT_FALSE(allows(policy({"::ffff:0:0/96"}, {}), "::ffff:127.0.0.1"));
  EXPECT_TRUE(allows(policy({"::ffff:0:0/96"}, {}), "::ffff:1.1.1.1"));
}

TEST(EgressPolicyTest, ANat64OfOnesOwnLeadsNowhereWhereTheGuestMayNotGo) {
  // 169.254.169.254 and 1.1.1.1, behind prefixes of 48, 56, 64 and 96 bits.
  const struct {
    const char* denied;
    const char* allowed;
  } places[] = {{"64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:101:1:100::"},
                {"64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1:1:1:101::"},
                {"64:ff9b:1::a9:fea9:fe00:0", "64:ff9b:1::1:101:100:0"},
                {"64:ff9b:1::a9fe:a9fe", "64:ff9b:1::101:101"}};
  for (const auto& each : places) {
    EXPECT_FALSE(allows(policy({}, {}), each.allowed)) << each.allowed;
    for (const char* range : {"64:ff9b:1::/48", "64:ff9b:1::/47"}) {
      const EgressPolicy judge = policy({range}, {});
      const bool as_specific = std::string_view(range).ends_with("48");
      EXPECT_FALSE(allows(judge, each.denied)) << each.denied;
      EXPECT_EQ(allows(judge, each.allowed), as_specific) << each.allowed;
    }
  }
}

TEST(EgressPolicyTest, TheLibraryIsToldOfTheLoopbackOnlyWhenARuleIsAboutIt) {
  EXPECT_FALSE(policy({}, {}).may_reach_loopback());
  EXPECT_FALSE(policy({"0.0.0.0/0", "::/0", "10.0.0.0/8"}, {"127.0.0.1"}).may_reach_loopback());
  EXPECT_TRUE(policy({"127.0.0.1:80"}, {}).may_reach_loopback());
  EXPECT_TRUE(policy({"127.0.0.0/8"}, {}).may_reach_loopback());
  EXPECT_TRUE(policy({"::1"}, {}).may_reach_loopback());
}

TEST(EgressRuleTest, Texts) {
  for (const char* text : {"10.0.0.0/8", "1.2.3.4", "1.2.3.4:80", "1.2.3.4:80-90", "10.0.0.0/8:443",
                           "fd00::/8", "::1", "::/0", "[::1]:80", "[fd00::/8]:1-65535"}) {
    auto rule = EgressRule::parse(text);
    ASSERT_TRUE(rule.has_value()) << text;
    EXPECT_EQ(EgressRule::parse(rule->to_text()), *rule) << text;
  }
  for (const char* text : {"",
                           "10",
                           "10.0.0",
                           "10.0.0.0/33",
                           "10.0.0.1/8",
                           "10.0.0.0/",
                           "10.0.0.0/-1",
                           "10.0.0.0/8:0",
                           "10.0.0.0/8:",
                           "1.2.3.4:90-80",
                           "1.2.3.4:65536",
                           "1.2.3.4:80-",
                           "fd00::/129",
                           "fd00::1/8",
                           "[fd00::/8]",
                           "[fd00::/8]:",
                           "[1.2.3.4]:80",
                           "[::1:80",
                           "1.2.3.4 ",
                           "1.2.3.4/8 ",
                           "host:80",
                           "0x7f.0.0.1",
                           "127.1"}) {
    EXPECT_FALSE(EgressRule::parse(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace crosvm
