#include "cli/net_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm {
namespace {

using testing::HasSubstr;

std::string error_of(std::string_view text) {
  auto parsed = parse_net(text);
  return parsed ? "" : parsed.error().what();
}
NetRequest parsed(std::string_view text) {
  auto request = parse_net(text);
  EXPECT_TRUE(request.has_value()) << text << ": " << request.error().what();
  return request ? *request : NetRequest();
}

TEST(NetOptionsTest, ATapByName) {
  const NetRequest request = parsed("tap-name=tap0,mac=02:00:00:00:00:0a");
  EXPECT_EQ(std::get<NetRequest::TapName>(request.network).name, "tap0");
  EXPECT_EQ(request.mac, (MacAddress{2, 0, 0, 0, 0, 10}));
  EXPECT_EQ(request.vq_pairs, 1);
  EXPECT_FALSE(request.vhost_device);
  EXPECT_FALSE(request.mrg_rxbuf);
  EXPECT_FALSE(parsed("tap-name=tap0").mac);
}

TEST(NetOptionsTest, WhatLooksLikeAnotherTypeMustBeQuoted) {
  for (const char* text : {"tap-name=0", "tap-name=-7", "tap-name=0x10", "tap-name=true0",
                           "tap-name=false", "tap-name=truely"}) {
    EXPECT_THAT(error_of(text), HasSubstr("no variant matched")) << text;
  }
  EXPECT_EQ(std::get<NetRequest::TapName>(parsed("tap-name=\"0\"").network).name, "0");
  EXPECT_EQ(std::get<NetRequest::TapName>(parsed("tap-name=\"true0\"").network).name, "true0");
  EXPECT_EQ(std::get<NetRequest::TapName>(parsed("tap-name=0tap").network).name, "0tap");
}

TEST(NetOptionsTest, ATapByDescriptor) {
  EXPECT_EQ(std::get<NetRequest::TapFd>(parsed("tap-fd=0x3").network).number, 3);
  for (const char* text :
       {"tap-fd=", "tap-fd=x", "tap-fd=-1", "tap-fd=2147483648", "tap-fd=\"3\"", "tap-fd"}) {
    EXPECT_THAT(error_of(text), HasSubstr("no variant matched")) << text;
  }
}

TEST(NetOptionsTest, ANewTapHasAllItsAddresses) {
  const NetRequest request =
      parsed("host-ip=192.168.10.1,netmask=255.255.255.0,mac=aa:BB:cc:00:11:12");
  const auto& address = std::get<TapAddress>(request.network);
  EXPECT_EQ(address.ip, (Ipv4Address{192, 168, 10, 1}));
  EXPECT_EQ(address.netmask, (Ipv4Address{255, 255, 255, 0}));
  EXPECT_EQ(address.mac, (MacAddress{0xaa, 0xbb, 0xcc, 0, 0x11, 0x12}));
  EXPECT_FALSE(request.mac);  // it is the host's
  for (const char* text :
       {"host-ip=10.0.0.1", "host-ip=10.0.0.1,netmask=255.0.0.0", "netmask=255.0.0.0",
        "mac=02:00:00:00:00:01", "host-ip=10.0.0.1,mac=02:00:00:00:00:01", ""}) {
    EXPECT_THAT(error_of(text), HasSubstr("no variant matched")) << text;
  }
  EXPECT_THAT(error_of("host-ip=10.0.0,netmask=255.0.0.0,mac=02:00:00:00:00:01"),
              HasSubstr("host-ip: `10.0.0` is not an IPv4 address"));
}

TEST(NetOptionsTest, OneModeAndNoOtherKeys) {
  for (const char* text :
       {"tap-name=a,tap-fd=3", "tap-name=a,host-ip=10.0.0.1,netmask=255.0.0.0", "tap-name=a,x=1",
        "tap-name=a,mrg_rxbuf", "tap0", "tap-name=a,tap-name=b"}) {
    EXPECT_THAT(error_of(text), HasSubstr("no variant matched")) << text;
  }
}

TEST(NetOptionsTest, TheOtherKeys) {
  const NetRequest request = parsed("tap-name=a,vq-pairs=4,mrg-rxbuf,pci-address=00:05.0");
  EXPECT_EQ(request.vq_pairs, 4);
  EXPECT_EQ(request.mrg_rxbuf, true);
  EXPECT_EQ(request.pci_address, "00:05.0");
  EXPECT_EQ(parsed("tap-name=a,vhost-net").vhost_device, "/dev/vhost-net");
  EXPECT_EQ(parsed("vhost-net=[],tap-name=a").vhost_device, "/dev/vhost-net");
  EXPECT_EQ(parsed("tap-name=a,vhost-net=[device=/x]").vhost_device, "/x");
  EXPECT_EQ(parsed("tap-name=a,vhost-net=[/x]").vhost_device, "/x");
  EXPECT_TRUE(parsed("tap-name=a,packed-queue").packed_queue);
  EXPECT_NE(error_of("tap-name=a,vhost-net=true"), "");
  EXPECT_NE(error_of("tap-name=a,vq-pairs=0"), "");
  EXPECT_NE(error_of("tap-name=a,vq-pairs=257"), "");
  EXPECT_NE(error_of("tap-name=a,pci-address=nowhere"), "");
}

TEST(NetOptionsTest, WhatCannotBeTogether) {
  EXPECT_THAT(error_of("tap-name=a,mrg-rxbuf,packed-queue"), HasSubstr("cannot both"));
  EXPECT_THAT(error_of("tap-name=a,vhost-net,packed-queue"), HasSubstr("cannot both"));
  EXPECT_EQ(error_of("tap-name=a,mrg-rxbuf=false,packed-queue"), "");
}

TEST(NetOptionsTest, OldFlagsMakeCardsBehindTheOthers) {
  OldNetOptions old{.host_ip = Ipv4Address{10, 0, 0, 1},
                    .netmask = Ipv4Address{255, 0, 0, 0},
                    .mac = MacAddress{2, 0, 0, 0, 0, 1},
                    .tap_names = {"one", "two"},
                    .tap_fds = {7},
                    .vq_pairs = 2,
                    .vhost_net = true,
                    .vhost_device = {}};
  auto all = all_nets({parsed("tap-name=zero")}, old, 2);
  ASSERT_TRUE(all.has_value());
  ASSERT_EQ(all->size(), 5u);
  EXPECT_EQ(std::get<NetRequest::TapName>((*all)[0].network).name, "zero");
  EXPECT_EQ(std::get<NetRequest::TapName>((*all)[1].network).name, "one");
  EXPECT_EQ(std::get<NetRequest::TapName>((*all)[2].network).name, "two");
  EXPECT_EQ(std::get<NetRequest::TapFd>((*all)[3].network).number, 7);
  EXPECT_EQ(std::get<TapAddress>((*all)[4].network).mac, (MacAddress{2, 0, 0, 0, 0, 1}));
  EXPECT_FALSE((*all)[0].vhost_device);
  EXPECT_EQ((*all)[0].vq_pairs, 1);
  for (size_t i = 1; i < 5; ++i) {
    EXPECT_EQ((*all)[i].vhost_device, "/dev/vhost-net");
    EXPECT_EQ((*all)[i].vq_pairs, 2);
    EXPECT_FALSE((*all)[i].mac);
  }
  old.netmask.reset();
  EXPECT_FALSE(all_nets({}, old, 2).has_value());
}

TEST(NetOptionsTest, MorePairsThanVcpusBecomeOne) {
  auto all = all_nets({parsed("tap-name=a,vq-pairs=4"), parsed("tap-name=b,vq-pairs=2")}, {}, 2);
  ASSERT_TRUE(all.has_value());
  EXPECT_EQ((*all)[0].vq_pairs, 1);
  EXPECT_EQ((*all)[1].vq_pairs, 2);
}

}  // namespace
}  // namespace crosvm
