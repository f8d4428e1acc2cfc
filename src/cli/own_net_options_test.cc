#include "cli/own_net_options.h"

#include <gtest/gtest.h>

namespace crosvm {
namespace {

std::string error_of(std::string_view text) {
  auto request = parse_own_net(text);
  if (!request) return "another kind";
  return request->has_value() ? "" : request->error().what();
}

TEST(OwnNetOptionsTest, TheUserNetwork) {
  const auto plain = parse_own_net("user");
  ASSERT_TRUE(plain && plain->has_value());
  EXPECT_EQ(std::get<UserNetConfig>((*plain)->network).mtu, 1500);
  const auto keys = parse_own_net("user,mtu=9000,forward=[tcp:8080-:80],pci-address=0:5.0");
  ASSERT_TRUE(keys && keys->has_value()) << keys->error().what();
  const auto& config = std::get<UserNetConfig>((*keys)->network);
  EXPECT_EQ(config.mtu, 9000);
  EXPECT_EQ(config.forward.size(), 1U);
  EXPECT_EQ(config.pci_address, "0:5.0");
  EXPECT_EQ(error_of("user,mac=zz"), "user: mac: `zz` is not a MAC address like 02:00:00:00:00:01");
  EXPECT_NE(error_of("user,pci-address=x").find("user: pci-address: "), std::string::npos);
  EXPECT_NE(error_of("user,tap-name=x").find("unknown field `tap-name`"), std::string::npos);
}

TEST(OwnNetOptionsTest, Passt) {
  const auto request =
      parse_own_net("passt,socket=/tmp/passt_1.socket,mac=02:00:00:00:00:07,mtu=1400");
  ASSERT_TRUE(request && request->has_value()) << request->error().what();
  const auto& passt = std::get<NetRequest::Passt>((*request)->network);
  EXPECT_EQ(passt.socket, "/tmp/passt_1.socket");
  EXPECT_EQ(passt.mtu, 1400);
  EXPECT_EQ((*request)->mac, (MacAddress{2, 0, 0, 0, 0, 7}));
  EXPECT_FALSE(passt.vhost_user);
  const auto faster = parse_own_net("passt,vhost-user,socket=/tmp/a");
  ASSERT_TRUE(faster && faster->has_value()) << faster->error().what();
  EXPECT_TRUE(std::get<NetRequest::Passt>((*faster)->network).vhost_user);
  EXPECT_NE(error_of("passt,socket=/tmp/a,vhost-user,packed-queue").find("leave out one"),
            std::string::npos);
  EXPECT_NE(error_of("passt,socket=/tmp/a,mrg-rxbuf,packed-queue").find("leave out one"),
            std::string::npos);
  EXPECT_EQ(error_of("passt,socket=/tmp/a,mtu=67"), "passt: mtu: give at least 68 bytes");
  for (const char* mac : {"01:00:00:00:00:07", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"}) {
    const std::string error = error_of(std::string("passt,socket=/tmp/a,mac=") + mac);
    EXPECT_NE(error.find("a card has one like"), std::string::npos) << error;
  }
  EXPECT_NE(error_of("passt").find("missing field `socket`"), std::string::npos);
}

TEST(OwnNetOptionsTest, OtherKindsAreOthers) {
  for (const char* text : {"tap-name=user", "users", "user=1", "", "host-ip=10.0.0.1", "passts"}) {
    EXPECT_EQ(error_of(text), "another kind") << text;
  }
}

}  // namespace
}  // namespace crosvm
