#include "devices/net/net_control.h"

#include <gtest/gtest.h>

#include <vector>

namespace crosvm {
namespace {

constexpr MacAddress kMac = {2, 0, 0, 0, 0, 1};
constexpr uint64_t kFeatures = kNetGuestOffloads | net_feature(VIRTIO_NET_F_MAC) |
                               net_feature(VIRTIO_NET_F_CTRL_VLAN) |
                               net_feature(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);

/// A control queue, and what it has done to its card.
struct Card {
  explicit Card(uint16_t pairs = 4)
      : control(kMac, pairs,
                {.filter = [this](const NetFilter& now) { filter = now; },
                 .mac = [this](const MacAddress& now) { shown_mac = now; },
                 .pairs = [this](uint16_t now) { pairs_used = now; },
                 .offloads = [this](uint64_t now) { offloads = now; },
                 .announced = [] {}}) {}
  NetFilter filter;
  MacAddress shown_mac{};
  uint16_t pairs_used = 0;
  uint64_t offloads = 0;
  NetControl control;
};

DeviceFields state() {
  NetFilter filter;
  filter.mac = {2, 9, 9, 9, 9, 9};
  filter.modes = NetFilter::kAllMulticast;
  filter.by_vlan = 1;
  filter.set_vlan(7, true);
  filter.unicast.count = 1;
  DeviceFields fields;
  fields.set(NetControl::kTagFilter, filter);
  fields.set(NetControl::kTagPairs, uint16_t{3});
  fields.set(NetControl::kTagOffloads, net_feature(VIRTIO_NET_F_GUEST_CSUM));
  return fields;
}

TEST(NetControlTest, StateAndFeaturesComeInAnyOrder) {
  for (const bool features_first : {true, false}) {
    Card card;
    if (features_first) card.control.set_features(kFeatures);
    ASSERT_TRUE(card.control.load_state(state()).has_value());
    if (!features_first) card.control.set_features(kFeatures);
    EXPECT_EQ(card.filter.mac, (MacAddress{2, 9, 9, 9, 9, 9}));
    EXPECT_EQ(card.shown_mac, (MacAddress{2, 9, 9, 9, 9, 9}));
    EXPECT_TRUE(card.filter.has_vlan(7));
    EXPECT_EQ(card.pairs_used, 3);
    EXPECT_EQ(card.offloads, net_feature(VIRTIO_NET_F_GUEST_CSUM));
    DeviceFields saved;
    card.control.save_state(saved);
    EXPECT_EQ(saved.all(), state().all());
  }
}

TEST(NetControlTest, StateThatCannotBeChangesNothing) {
  Card card(2);  // the other had three
  card.control.set_features(kFeatures);
  EXPECT_FALSE(card.control.load_state(state()).has_value());
  EXPECT_FALSE(card.control.load_state({}).has_value());
  EXPECT_EQ(card.pairs_used, 1);
  EXPECT_EQ(card.filter.mac, kMac);
  EXPECT_EQ(card.offloads, kNetGuestOffloads);
}

TEST(NetControlTest, AResetForgetsAll) {
  Card card;
  ASSERT_TRUE(card.control.load_state(state()).has_value());
  card.control.set_features(kFeatures);
  card.control.reset();
  EXPECT_EQ(card.pairs_used, 1);
  EXPECT_EQ(card.offloads, 0u);
  EXPECT_EQ(card.filter.mac, kMac);
  EXPECT_EQ(card.shown_mac, kMac);
  EXPECT_TRUE(card.filter.has(NetFilter::kPromiscuous));
  card.control.set_features(kFeatures);
  EXPECT_EQ(card.offloads, kNetGuestOffloads);
}

TEST(NetControlTest, ADriverThatKnowsNoAddressThereIsShownNoOther) {
  Card card;
  ASSERT_TRUE(card.control.load_state(state()).has_value());
  card.control.set_features(kFeatures & ~net_feature(VIRTIO_NET_F_MAC));
  EXPECT_EQ(card.filter.mac, (MacAddress{2, 9, 9, 9, 9, 9}));
  EXPECT_EQ(card.shown_mac, kMac);
}

std::vector<std::byte> start_of(const MacAddress& to, uint16_t type, uint16_t tag) {
  std::vector<std::byte> start(NetFilter::kLooksAt);
  for (size_t i = 0; i < to.size(); ++i) start[i] = std::byte{to[i]};
  start[12] = std::byte(type >> 8);
  start[13] = std::byte(type & 0xff);
  start[14] = std::byte(tag >> 8);
  start[15] = std::byte(tag & 0xff);
  return start;
}

TEST(NetFilterTest, CountsThatCannotBeLetAllThrough) {
  NetFilter filter;
  filter.modes = 0;
  filter.unicast.count = 255;  // of a state that was made up
  EXPECT_TRUE(filter.accepts(start_of({2, 1, 1, 1, 1, 1}, 0x0800, 0)));
  EXPECT_FALSE(filter.accepts(start_of({3, 1, 1, 1, 1, 1}, 0x0800, 0)));
}

TEST(NetFilterTest, LooksAtTagsOf8021QAlone) {
  NetFilter filter;
  filter.mac = kMac;
  filter.modes = 0;
  filter.by_vlan = 1;
  EXPECT_FALSE(filter.accepts(start_of(kMac, 0x8100, 0xf123)));
  EXPECT_TRUE(filter.accepts(start_of(kMac, 0x88a8, 0xf123)));  // 802.1ad: no command names it
  filter.set_vlan(0x123, true);
  EXPECT_TRUE(filter.accepts(start_of(kMac, 0x8100, 0xf123)));
  filter.by_vlan = 0;
  EXPECT_TRUE(filter.accepts(start_of(kMac, 0x8100, 0x0fff)));
}

TEST(NetFilterTest, WhatIsNoPacketIsOfNoUse) {
  NetFilter filter;
  EXPECT_FALSE(filter.accepts({}));
  EXPECT_FALSE(filter.accepts(std::vector<std::byte>(13)));
  EXPECT_TRUE(filter.accepts(std::vector<std::byte>(14)));
}

}  // namespace
}  // namespace crosvm
